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
// batch, or what an evaluator catches up with, comes in behind newer ones, where no cursor of the newest
// page would find it. So the last hours are read again and again, and what is known is skipped.
const (
	// tailWindow is more than the hour that the first message of a batch may wait.
	tailWindow = 2 * time.Hour
	// wholeEvery is after how many looks the whole window is read. The others end with a page without news.
	wholeEvery = 30
	// followed is how many that wait are asked for one by one, once they are older than the window.
	followed = 20
	// tailPage is the most that the api gives at once.
	tailPage = 100
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
		news, err := t.look(ctx, look%wholeEvery == 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (look == 0 || refusedWith(err, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound)):
			return err
		case err != nil:
			s.say("%s: it goes on when that is over.", strings.TrimSuffix(err.Error(), "."))
		case look == 0:
			s.say("Watching the deliveries of %s until Ctrl-C.", c.Webhook)
		default:
			t.print(news)
		}
		if s.out.err != nil || !pause(ctx, c.Every) {
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

// look returns what is new or has changed, the oldest first. A look that fails has told nothing, so the
// next one finds the same.
func (t *tail) look(ctx context.Context, whole bool) ([]heardDelivery, error) {
	var news []heardDelivery
	listed := map[string]bool{}
	params := &client.ListDeliveriesParams{Limit: new(tailPage), From: new(time.Now().Add(-tailWindow))}
	for more := true; more; {
		page, err := read[struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			Meta       client.Meta       `json:"meta"`
		}](t.api.ListDeliveries(ctx, t.site, t.webhook, params))
		if err != nil {
			return nil, err
		}
		fresh := 0
		for _, raw := range page.value.Deliveries {
			d := heardDelivery{raw: raw}
			if err := json.Unmarshal(raw, &d.DeliveryView); err != nil {
				return nil, err
			}
			if t.known[d.ID] != progressOfDelivery(d) && !listed[d.ID] {
				news = append(news, d)
				fresh++
			}
			listed[d.ID] = true
		}
		params.After = page.value.Meta.After
		more = params.After != nil && (whole || fresh > 0)
	}
	slices.Reverse(news)
	if whole {
		older, err := t.lookAtOlder(ctx, listed)
		if err != nil {
			return nil, err
		}
		news = append(older, news...)
	}
	for _, d := range news {
		t.known[d.ID] = progressOfDelivery(d)
	}
	return news, nil
}

// lookAtOlder asks for those that wait, but have left the window, and forgets the rest.
func (t *tail) lookAtOlder(ctx context.Context, listed map[string]bool) (news []heardDelivery, _ error) {
	asked := 0
	for id, before := range t.known {
		switch {
		case listed[id]:
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
			return nil, err
		}
		if err != nil || d.value.ID != id { // it went with others: the batch is listed itself
			delete(t.known, id)
			continue
		}
		if heard := (heardDelivery{d.value, d.raw}); progressOfDelivery(heard) != before {
			news = append(news, heard)
		}
	}
	return news, nil
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
