package trigger

import (
	"encoding/json"
	"time"
)

// Example is a message of a known type, to see before the first real one comes. It is what the
// type's own step makes of made-up measurements of a made-up site.
func Example(t Type) Message {
	c := examples[t]
	config, problems := Parse(t, json.RawMessage(c.config))
	if len(problems) > 0 { // they are constants: a test parses them all
		panic(problems[0].Field + " " + problems[0].Message)
	}
	slot := Slot{At: exampleTime, Interval: 10 * time.Second}
	setting := Setting{Goal: GoalOf(config), RevisedAt: slot.At.AddDate(0, -2, 0)}
	state := NewState(1, setting.RevisedAt)
	state.LastSlot, state.Machine = slot.At.Add(-slot.Interval), c.machine
	_, occurrences := config.Step(setting, state, Sample{Answers: c.answers}, slot)
	o := occurrences[0]

	goal := ""
	if setting.Goal != nil {
		goal = setting.Goal.EventName
	}
	m := Message{Type: string(t) + "." + string(o.Transition), Timestamp: slot.At, Data: MessageData{
		ID:        FiringID(exampleTrigger, 1, o.Transition, o.Anchor),
		Site:      MessageSite{ID: 1, Domain: "demo.example.com"},
		WebhookID: "wh_2f3k5q6y7zj4m2a5c6d7e2b3n4",
		Trigger:   MessageTrigger{ID: exampleTrigger, Name: config.Title(goal), Type: t, Config: canonical(config)},
		Value:     o.Value, Threshold: o.Threshold, Window: o.Window, Explanation: o.Explanation, Baseline: o.Baseline,
		Group: o.Group, Next: o.Next, Conversions: c.conversions,
		Context:      &Context{TopSources: c.sources, TopPages: c.pages},
		DashboardURL: "https://plausible.example.com/demo.example.com",
	}}
	for i, value := range c.chart {
		back := time.Duration(len(c.chart)-1-i) * o.Window.To.Sub(o.Window.From)
		m.Data.Context.Chart = append(m.Data.Context.Chart, Point{At: o.Window.To.Add(-back), Value: value})
	}
	return m
}

const exampleTrigger = "tr_7m2x4k6p3q5s7v2w4y6z3b5d7f"

var exampleTime = time.Date(2026, 11, 23, 15, 4, 10, 0, time.UTC)

// example is what Example makes a message of: a config and what was measured.
type example struct {
	config      string
	machine     Machine // what the trigger knew before
	answers     []Answer
	chart       []float64 // the last is the value itself
	sources     []Ranked
	pages       []Ranked
	conversions []Conversion
}

var examples = map[Type]example{
	GoalAchievedType: {
		config:  `{"goal": {"event_name": "Signup"}}`,
		answers: []Answer{{Buckets: []Bucket{{Start: exampleTime.Add(-10 * time.Second), Count: 2}}}},
		sources: []Ranked{{"Google", 1}, {"newsletter", 1}},
		pages:   []Ranked{{"/signup", 2}},
		conversions: []Conversion{
			{Time: exampleTime.Add(-8 * time.Second), Page: "/signup", Source: "Google", Country: "EE", Props: map[string]string{"method": "email"}},
			{Time: exampleTime.Add(-3 * time.Second), Page: "/signup", Source: "newsletter", Country: "DE", Props: map[string]string{"method": "github"}},
		},
	},
	VisitorSpikeType: {
		config:  `{"threshold": 100, "window_seconds": 300}`,
		answers: []Answer{{Value: 143}},
		chart:   []float64{12, 9, 14, 143},
		sources: []Ranked{{"Hacker News", 97}, {"Direct / None", 21}},
		pages:   []Ranked{{"/blog/webhooks-that-do-not-lose-messages", 120}, {"/", 14}},
	},
	VisitorDropType: {
		config:  `{}`,
		machine: Machine{Armed: true},
		answers: []Answer{{Value: 0}, {Norm: exampleNorm(640)}},
		chart:   []float64{622, 655, 0},
		sources: []Ranked{}, pages: []Ranked{},
	},
	PageviewMilestoneType: {
		config:  `{"every": 10000}`,
		machine: Machine{Counters: []Counter{{Total: 49_980, Upto: exampleTime.Add(-Overlap), Passed: 49_997}}},
		answers: []Answer{{Buckets: []Bucket{{Start: exampleTime.Add(-10 * time.Second), Count: 23}}}, {Norm: exampleNorm(50)}},
		sources: []Ranked{{"Google", 6}, {"Direct / None", 4}},
		pages:   []Ranked{{"/", 7}, {"/pricing", 3}},
	},
	MetricThresholdType: {
		config:  `{"metric": "events", "goal": {"event_name": "Purchase"}, "threshold": 25, "window_seconds": 3600}`,
		answers: []Answer{{Value: 26, Volume: 24}},
		chart:   []float64{11, 14, 9, 26},
		sources: []Ranked{{"newsletter", 15}, {"Google", 6}},
		pages:   []Ranked{{"/checkout", 24}},
	},
	MetricChangeType: {
		config:  `{"metric": "conversion_rate", "goal": {"event_name": "Signup"}, "direction": "down", "percent": 40}`,
		answers: []Answer{{Value: 1.2, Volume: 417}, {Value: 2.4, Volume: 391}},
		chart:   []float64{2.6, 2.3, 2.4, 1.2},
		sources: []Ranked{{"Google", 188}, {"Direct / None", 120}},
		pages:   []Ranked{{"/", 201}, {"/features", 96}},
	},
	TrackingSilenceType: {
		config:  `{"minutes": 15}`,
		machine: Machine{Last: exampleTime.Add(-15 * time.Minute)},
		answers: []Answer{{}},
		sources: []Ranked{}, pages: []Ranked{},
	},
	GoalSilenceType: {
		config:  `{"goal": {"event_name": "Signup"}}`,
		machine: Machine{Last: exampleTime.Add(-9 * time.Hour)},
		answers: []Answer{{}, {Value: 1030}, {Norm: exampleNorm(2)}, {Norm: exampleNorm(100)}},
		sources: []Ranked{{"Google", 402}, {"Direct / None", 315}},
		pages:   []Ranked{{"/", 498}, {"/pricing", 260}},
	},
	NewSourceType: {
		config:  `{}`,
		answers: []Answer{{Ranking: []Ranked{{"Lobsters", 12}}}},
		sources: []Ranked{{"Lobsters", 12}, {"Google", 9}},
		pages:   []Ranked{{"/blog/clickhouse-for-small-teams", 13}, {"/", 8}},
	},
	NotFoundBurstType: {
		config:  `{}`,
		answers: []Answer{{Ranking: []Ranked{{"/old-docs/setup", 23}}}},
		sources: []Ranked{{"Reddit", 19}, {"Direct / None", 3}},
		pages:   []Ranked{{"/old-docs/setup", 22}, {"/docs", 5}},
	},
}

// exampleNorm is four weeks in which every hour was the same.
func exampleNorm(mean float32) *Norm {
	norm := &Norm{Days: 28}
	for hour := range norm.Hours {
		norm.Hours[hour] = Usual{Samples: 12, Mean: mean, Variance: mean}
	}
	return norm
}
