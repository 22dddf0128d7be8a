package evaluator

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator/internal/simulation"
)

// Thirty days with both late rows and slots that are missed now and then, replayed with what each slot
// could see. Facts: none is missed and none invented. Spikes: how long each takes to be found.
func TestThirtyDaysReplayed(t *testing.T) {
	const days, interval = 30, 30 * time.Second
	from := noon.Add(-days * 24 * time.Hour).Truncate(24 * time.Hour)
	scenario := simulation.Scenario{Seed: 30, From: from, To: from.Add(days * 24 * time.Hour), Sites: 1, Visitors: 1.5, Late: 0.05}
	var spikes []time.Time
	for day := 1; day < days; day++ {
		at := from.Add(time.Duration(day)*24*time.Hour + time.Duration(day*7%24)*time.Hour)
		spikes = append(spikes, at)
		scenario.Changes = append(scenario.Changes, simulation.Change{SiteID: 1, From: at, To: at.Add(15 * time.Minute), Factor: 25})
	}
	traffic := simulation.Generate(scenario)
	oracle := simulation.NewOracle(traffic)

	replays := map[string]*replay{}
	for name, of := range map[string]struct {
		trigger.Type
		config string
	}{
		"each":      {trigger.GoalAchievedType, `{"goal": {"event_name": "Signup"}}`},
		"milestone": {trigger.PageviewMilestoneType, `{"every": 500}`},
		"spike":     {trigger.VisitorSpikeType, `{"threshold": 12, "window_seconds": 300, "keep_firing_seconds": 600}`},
	} {
		config, problems := trigger.Parse(of.Type, []byte(of.config))
		require.Empty(t, problems)
		replays[name] = newReplay(config, from)
	}
	slots := 0
	for slot := from; slot.Before(scenario.To.Add(time.Hour)); slot = slot.Add(interval) {
		if k := slot.Unix() / 30; k%997 < 20 { // ten minutes in some eight hours
			continue
		}
		slots++
		for _, r := range replays {
			r.step(oracle, trigger.Slot{At: slot, Interval: interval})
		}
	}

	signups, views := 0.0, 0.0
	for _, row := range traffic.Events {
		switch row.Name {
		case "Signup":
			signups++
		case "pageview":
			views++
		}
	}
	counted := 0.0
	for _, o := range replays["each"].told {
		counted += o.Value
	}
	assert.Equal(t, signups, counted, "every conversion is told once")
	assert.Len(t, replays["milestone"].anchors, int(views)/500, "every milestone is told")
	assert.Len(t, replays["milestone"].told, len(replays["milestone"].anchors), "once")

	delays, fired := []time.Duration{}, replays["spike"].told
	for _, spike := range spikes {
		if i := slices.IndexFunc(fired, func(o trigger.Occurrence) bool {
			return !o.Window.To.Before(spike) && o.Window.To.Before(spike.Add(20*time.Minute))
		}); i >= 0 {
			delays = append(delays, fired[i].Window.To.Sub(spike))
			fired = slices.Delete(fired, i, i+1)
		}
	}
	slices.Sort(delays)
	require.NotEmpty(t, delays)
	t.Logf("%d slots, %d events: %.0f conversions and %d milestones, each told once; %d of %d spikes found, after %s in the median and %s in 95 %%, %d more firings",
		slots, len(traffic.Events), counted, len(replays["milestone"].anchors), len(delays), len(spikes), delays[len(delays)/2], delays[len(delays)*95/100], len(fired))
	assert.GreaterOrEqual(t, len(delays), len(spikes)*9/10)
}

// replay is a trigger on its way through the past.
type replay struct {
	config  trigger.Config
	setting trigger.Setting
	state   trigger.State
	told    []trigger.Occurrence
	anchors map[string]bool
}

func newReplay(config trigger.Config, from time.Time) *replay {
	return &replay{
		config: config, setting: trigger.Setting{Goal: trigger.GoalOf(config), RevisedAt: from}, state: trigger.NewState(1, from), anchors: map[string]bool{},
	}
}

func (r *replay) step(oracle *simulation.Oracle, slot trigger.Slot) {
	var sample trigger.Sample
	for _, q := range r.config.Ask(r.setting, r.state, slot) {
		var a trigger.Answer
		if q.Ask != trigger.AskNorm {
			a = oracle.Answer(1, q, slot.Interval, slot.At)
		}
		sample.Answers = append(sample.Answers, a)
	}
	var occurrences []trigger.Occurrence
	r.state, occurrences = r.config.Step(r.setting, r.state, sample, slot)
	for _, o := range occurrences {
		r.told = append(r.told, o)
		r.anchors[o.Anchor] = true
	}
}
