package evaluator

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// refuse is a refusal of an answer, with a sentence for the user.
func refuse(code, format string, arguments ...any) error {
	return &stream.Refusal{Code: code, Sentence: fmt.Sprintf(format, arguments...)}
}

// preview tells what an unsaved trigger would have done: it steps it through the past by the functions of
// production. Answers to its questions are fetched for all slots at once.
func (e *evaluator) preview(ctx context.Context, request stream.PreviewRequest) (stream.Preview, error) {
	now, _, err := e.events.Now(ctx)
	if err != nil {
		return stream.Preview{}, err
	}
	w, err := e.unsaved(ctx, request)
	if err != nil {
		return stream.Preview{}, err
	}
	r, err := e.newRehearsal(ctx, w, request, closedSlot(now, e.interval, e.delay))
	if err != nil {
		return stream.Preview{}, err
	}
	done, err := r.run(ctx, w.Config)
	if err != nil {
		return stream.Preview{}, err
	}
	p := stream.Preview{
		From: r.from, To: r.to, StepSeconds: int(r.step / time.Second), Points: thinned(done.points, stream.MostPoints), Firings: done.firings(), Count: done.count,
	}
	if cut := len(p.Firings) - stream.MostFirings; cut > 0 {
		p.Firings, p.Truncated = p.Firings[cut:], true
	}
	if request.PerMonth > 0 {
		p.Suggestion, err = r.suggest(ctx, request, done)
	}
	return p, err
}

// unsaved makes a trigger of a request, with what Plausible says of its site and goal.
func (e *evaluator) unsaved(ctx context.Context, request stream.PreviewRequest) (watched, error) {
	config, problems := trigger.Parse(request.Type, request.Config)
	filters, faults := trigger.ParseFilters(request.Filters)
	if problems = append(problems, faults...); len(problems) == 0 {
		problems = trigger.CheckFilters(config, filters)
	}
	if request.CooldownSeconds < 0 {
		problems = append(problems, strict.Problem{Field: "cooldown_seconds", Message: "must not be negative"})
	}
	if len(problems) > 0 {
		details, err := json.Marshal(problems)
		if err != nil {
			return watched{}, fmt.Errorf("encode problems: %w", err)
		}
		return watched{}, &stream.Refusal{Code: stream.RefusedInvalid, Sentence: "The trigger is not valid.", Problems: details}
	}
	w := watched{Trigger: trigger.Trigger{
		ID: "preview", SiteID: request.SiteID, Type: request.Type, Config: config, Revision: 1,
		Options: trigger.Options{Cooldown: time.Duration(request.CooldownSeconds) * time.Second, NotifyResolved: request.NotifyResolved, Filters: filters},
	}}
	p, err := e.catalogue.surroundings(ctx, []*watched{&w})
	if err != nil {
		return watched{}, err
	}
	e.catalogue.resolve(&w, p)
	if w.problem != "" {
		return watched{}, refuse(stream.RefusedImpossible, "%s", w.problem)
	}
	return w, nil
}

// thinned are so many of the points: of each stretch its lowest and its highest.
func thinned(points []stream.PreviewPoint, most int) []stream.PreviewPoint {
	if len(points) <= most {
		return points
	}
	kept := make([]stream.PreviewPoint, 0, most)
	stretches := most / 2
	for i := range stretches {
		stretch := points[i*len(points)/stretches : (i+1)*len(points)/stretches]
		low, high := 0, 0
		for k, p := range stretch {
			if p.Value == nil {
				continue
			}
			if v := stretch[low].Value; v == nil || *p.Value < *v {
				low = k
			}
			if v := stretch[high].Value; v == nil || *p.Value > *v {
				high = k
			}
		}
		kept = append(kept, stretch[min(low, high)])
		if low != high {
			kept = append(kept, stretch[max(low, high)])
		}
	}
	return kept
}
