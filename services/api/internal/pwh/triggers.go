package pwh

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

// ownFields are those of a trigger beside its config; no config has one of these names.
var ownFields = []string{"name", "enabled", "filters", "cooldown_seconds", "notify_resolved"}

// parseTrigger reads TYPE:KEY=VALUE,KEY=VALUE as a trigger's JSON. A value is JSON where it can be
// read as such, else text; a part without = belongs to the value before it, which has a comma.
func parseTrigger(text string) (map[string]any, error) {
	kind, list, _ := strings.Cut(text, ":")
	config := map[string]any{}
	trigger := map[string]any{"type": kind, "config": config}
	var pairs []string
	for part := range strings.SplitSeq(list, ",") {
		switch {
		case strings.Contains(part, "="):
			pairs = append(pairs, part)
		case len(pairs) > 0:
			pairs[len(pairs)-1] += "," + part
		case list != "":
			return nil, usage("--trigger %q: %q has no =; write TYPE:KEY=VALUE,KEY=VALUE", clean(text), clean(part))
		}
	}
	for _, pair := range pairs {
		key, written, _ := strings.Cut(pair, "=")
		var value any = written
		if json.Valid([]byte(written)) {
			value = json.RawMessage(written)
		}
		into, path := config, strings.Split(strings.TrimSpace(key), ".")
		if slices.Contains(ownFields, path[0]) {
			into = trigger
		}
		for _, name := range path[:len(path)-1] {
			inner, is := into[name].(map[string]any)
			if !is {
				inner = map[string]any{}
				into[name] = inner
			}
			into = inner
		}
		into[path[len(path)-1]] = value
	}
	return trigger, nil
}

type previewCommand struct {
	Trigger  string  `arg:"" name:"type[:key=value,…]" help:"As in pwh create --trigger: visitor_spike:threshold=100."`
	Since    string  `placeholder:"TIME" help:"From when on, such as 7d or 2026-11-01; default 30 days."`
	PerMonth float64 `placeholder:"N" help:"Suggest a value with which it fires so often in a month."`
}

func (c *previewCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	asked, err := parseTrigger(c.Trigger)
	if err != nil {
		return err
	}
	from, err := s.instantIfGiven("since", c.Since)
	if err != nil {
		return err
	}
	if from != nil {
		asked["from"] = from
	}
	if c.PerMonth != 0 {
		asked["firings_per_month"] = c.PerMonth
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	preview, err := read[client.TriggerPreview](api.PreviewTriggerWithBody(ctx, site, "application/json", bytes.NewReader(body)))
	if err != nil || s.machine(preview.raw) {
		return err
	}
	p := preview.value
	t := newTable("AT", "VALUE", "THRESHOLD", "MESSAGE")
	for _, firing := range p.Firings {
		t.row(s.at(firing.At), number(firing.Value), number(firing.Threshold), string(firing.Transition))
		t.note(firing.Explanation)
	}
	span := "between " + s.at(p.From) + " and " + s.at(p.To)
	t.print(s.out, "It would not have fired "+span+".")
	if p.Count > 0 {
		s.say("It would have fired %s %s.", counted(p.Count, "time"), span)
	}
	if p.Truncated {
		s.say("Older ones are not listed.")
	}
	if p.Suggestion != nil {
		s.say("With %s=%s it would fire %s times in a month.", p.Suggestion.Field, number(p.Suggestion.Value), number(p.Suggestion.FiringsPerMonth))
	}
	return nil
}

type explainCommand struct {
	one
	Trigger string `arg:"" help:"The trigger's id."`
	Since   string `placeholder:"TIME" help:"From when on, such as 3h or 2026-11-01; default 24 hours."`
	Until   string `placeholder:"TIME" help:"Until when; default now."`
}

func (c *explainCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	params := &client.ExplainTriggerParams{}
	if params.From, err = s.instantIfGiven("since", c.Since); err != nil {
		return err
	}
	if params.To, err = s.instantIfGiven("until", c.Until); err != nil {
		return err
	}
	explanation, err := read[client.Explanation](api.ExplainTrigger(ctx, site, c.Webhook, c.Trigger, params))
	if err != nil || s.machine(explanation.raw) {
		return err
	}
	e := explanation.value
	if e.State != nil {
		s.out.printf("%s since %s.\n", e.State.Status, s.at(e.State.Since))
		for _, line := range wrap(e.State.Explanation, lineWidth) {
			s.out.printf("%s\n", line)
		}
		s.out.printf("\n")
	}
	t := newTable("FROM", "TO", "VALUE", "THRESHOLD", "STATUS")
	for _, run := range e.Runs {
		t.row(s.at(run.From), s.at(run.To), numberOrNone(run.Value), numberOrNone(run.Threshold), string(run.Status))
	}
	t.print(s.out, "There are no evaluations of this time.")
	if e.Truncated {
		s.say("Older ones were left out: ask for a shorter time with --since and --until.")
	}
	return nil
}
