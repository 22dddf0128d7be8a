package pwh

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

// The list of deliveries is ordered by the time that a message carries, not by when it was stored: a
// batch, or what was on the stream while no dispatcher ran, comes in behind newer ones, where no cursor of
// the newest page would find it. So the last hours are read again and again, and what is known is skipped.
const (
	// tailWindow bounds how late a message may come in and still be seen; in a batch it waits an hour at most.
	tailWindow = 6 * time.Hour
	// tailPage is the most that the api gives at once.
	tailPage = 100
	// wholeEvery is after how many looks the whole window is read, and what waits since before it. The
	// others end with a page without news.
	wholeEvery = 30
	// waitingPages bounds what is read of the latter: a webhook that is off may have held ever so many.
	waitingPages = 10
	// followed is how many that waited and are not listed any more are asked for at a whole look.
	followed = 20
)

type tailCommand struct {
	one
	Every time.Duration `default:"2s" help:"How often to look."`
}

func (c *tailCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	if c.Every < 100*time.Millisecond {
		return usage("--every must be at least 100ms")
	}
	t := &tail{session: s, api: api, site: site, webhook: c.Webhook, known: map[string]progress{}}
	for look := 0; ; look++ {
		if err := t.tell(ctx, look); err != nil && ctx.Err() == nil {
			return err
		}
		if s.out.failed() || !pause(ctx, c.Every) {
			return nil
		}
	}
}

// progress is of what a change is printed.
type progress struct {
	status   client.DeliveryStatus
	attempts int
}

type heardDelivery struct {
	client.DeliveryView
	raw json.RawMessage
}

type tail struct {
	session       *session
	api           *client.Client
	site, webhook string
	known         map[string]progress // what was printed, or was there before
}

// tell prints what one look finds. What was there at the first one is known already; an api that cannot
// answer for a while is waited for.
func (t *tail) tell(ctx context.Context, look int) error {
	news, err := t.look(ctx, look%wholeEvery == 0)
	switch {
	case err != nil && (look == 0 || ctx.Err() != nil || refusedWith(err, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound)):
		return err
	case err != nil:
		t.session.say("%s: it goes on when that is over.", strings.TrimSuffix(err.Error(), "."))
	case look == 0:
		t.session.say("Watching the deliveries of %s until Ctrl-C.", t.webhook)
	default:
		t.print(news)
	}
	return nil
}

// look returns what is new or has changed, the oldest first. A look that fails has told nothing, so the
// next one finds the same.
func (t *tail) look(ctx context.Context, whole bool) ([]heardDelivery, error) {
	found := &finding{listed: map[string]bool{}}
	window := &client.ListDeliveriesParams{Limit: new(tailPage), From: new(time.Now().Add(-tailWindow))}
	if err := t.collect(ctx, window, found, func(_, fresh int) bool { return whole || fresh > 0 }); err != nil {
		return nil, err
	}
	if whole {
		waiting := &client.ListDeliveriesParams{Limit: new(tailPage), Status: new(client.DeliveryStatusWaiting)}
		if err := t.collect(ctx, waiting, found, func(pages, _ int) bool { return pages < waitingPages }); err != nil {
			return nil, err
		}
		if err := t.collectGone(ctx, found); err != nil {
			return nil, err
		}
	}
	slices.Reverse(found.news)
	for _, d := range found.news {
		t.known[d.ID] = progressOfDelivery(d)
	}
	return found.news, nil
}

// finding is what a look has come upon.
type finding struct {
	news   []heardDelivery // the newest first, as they are listed
	listed map[string]bool
}

// collect reads the pages of a list as long as it is to go on.
func (t *tail) collect(ctx context.Context, params *client.ListDeliveriesParams, found *finding, goOn func(pages, fresh int) bool) error {
	for pages := 1; ; pages++ {
		page, err := read[struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			Meta       client.Meta       `json:"meta"`
		}](t.api.ListDeliveries(ctx, t.site, t.webhook, params))
		if err != nil {
			return err
		}
		fresh := 0
		for _, raw := range page.value.Deliveries {
			d := heardDelivery{raw: raw}
			if err := json.Unmarshal(raw, &d.DeliveryView); err != nil {
				return err
			}
			if t.known[d.ID] != progressOfDelivery(d) && !found.listed[d.ID] {
				found.news = append(found.news, d)
				fresh++
			}
			found.listed[d.ID] = true
		}
		params.After = page.value.Meta.After
		if params.After == nil || !goOn(pages, fresh) {
			return nil
		}
	}
}

// collectGone asks for what waited and is in neither list any more, and forgets the rest that is in neither.
func (t *tail) collectGone(ctx context.Context, found *finding) error {
	asked := 0
	for id, before := range t.known {
		switch {
		case found.listed[id]:
			continue
		case before.status != client.DeliveryStatusWaiting:
			delete(t.known, id)
			continue
		case asked == followed:
			continue
		}
		asked++
		d, err := read[client.DeliveryView](t.api.ShowDelivery(ctx, t.site, t.webhook, id))
		if err != nil && !refusedWith(err, http.StatusNotFound) {
			return err
		}
		if err != nil || d.value.ID != id { // it went with others: the batch is listed itself
			delete(t.known, id)
			continue
		}
		if heard := (heardDelivery{d.value, d.raw}); progressOfDelivery(heard) != before {
			found.news = append(found.news, heard)
		}
	}
	return nil
}

func progressOfDelivery(d heardDelivery) progress { return progress{d.Status, d.Attempts} }

func (t *tail) print(news []heardDelivery) {
	s := t.session
	for _, d := range news {
		if s.machine(d.raw) {
			continue
		}
		s.out.printf("%s  %-9s  %-30s  %s\n", time.Now().In(s.zone).Format(time.TimeOnly), d.Status, clean(d.ID), clean(d.Type))
		for _, line := range wrap(s.trouble(d.DeliveryView), lineWidth-2) {
			s.out.printf("  %s\n", line)
		}
	}
}
