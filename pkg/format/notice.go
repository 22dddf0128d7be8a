package format

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// notice is a message as people read it. Its texts are as they came: whoever writes them escapes and
// clips them as its service needs.
type notice struct {
	mood    mood
	title   string
	text    string
	facts   []fact
	lists   []list
	remarks []string
	site    string
	at      time.Time
	link    string
}

type mood uint8

const (
	alarm  mood = iota // something happened
	relief             // it is over
	news               // a word of the system itself
)

type fact struct{ name, value string }

type list struct {
	name  string
	lines []string
}

// The most of a message that is shown: the dashboard has the rest.
const (
	shownLines   = 5
	shownNotices = 10 // of a batch
)

// message is what is read of a standard message, and of a batch of them. Fields that a message does
// not have, or has in another form, are left out: a notice with less is better than none.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Site    trigger.MessageSite `json:"site"`
		Trigger struct {
			Name string       `json:"name"`
			Type trigger.Type `json:"type"`
		} `json:"trigger"`
		Value        *float64              `json:"value"`
		Threshold    *float64              `json:"threshold"`
		Window       trigger.Window        `json:"window"`
		Explanation  string                `json:"explanation"`
		Baseline     *float64              `json:"baseline"`
		Group        *trigger.Group        `json:"group"`
		Next         *trigger.Next         `json:"next"`
		Late         bool                  `json:"late"`
		Missed       bool                  `json:"missed"`
		Suppressed   int                   `json:"suppressed"`
		Flapping     bool                  `json:"flapping"`
		Renotified   int                   `json:"renotified"`
		Episode      *trigger.EndedEpisode `json:"episode"`
		Conversions  []trigger.Conversion  `json:"conversions"`
		Context      trigger.Context       `json:"context"`
		DashboardURL string                `json:"dashboard_url"`
		Messages     []json.RawMessage     `json:"messages"` // of a batch
	} `json:"data"`
}

// readNotices reads a message, or the first of a batch, and how many more there are.
func readNotices(raw []byte) (notices []notice, more int, err error) {
	m, err := readMessage(raw)
	if err != nil {
		return nil, 0, err
	}
	if m.Type != "batch" {
		return []notice{m.notice()}, 0, nil
	}
	for i, inner := range m.Data.Messages {
		if i == shownNotices {
			return notices, len(m.Data.Messages) - i, nil
		}
		one, err := readMessage(inner)
		if err != nil {
			return nil, 0, err
		}
		notices = append(notices, one.notice())
	}
	if len(notices) == 0 {
		notices = []notice{m.notice()}
	}
	return notices, 0, nil
}

func readMessage(raw []byte) (m message, err error) {
	if err := json.Unmarshal(raw, &m); err != nil && !json.Valid(raw) { // else the other fields are read
		return m, errors.New("the message is not JSON")
	}
	return m, nil
}

func (m message) notice() notice {
	d := m.Data
	n := notice{text: d.Explanation, site: d.Site.Domain, at: m.Timestamp, link: link(d.DashboardURL)}
	kind, transition, _ := strings.Cut(m.Type, ".")
	n.title = d.Trigger.Name
	if n.title == "" {
		n.title = words(m.Type)
	}
	switch {
	case kind == "webhook":
		n.mood, n.title = news, words(m.Type)
		if m.Type == "webhook.ping" && n.text == "" {
			n.title, n.text = "Test message", "The webhook works: messages of its triggers will look like this one."
		}
		return n
	case transition == string(trigger.Resolved):
		n.mood, n.title = relief, "Resolved: "+n.title
	case d.Missed:
		n.mood, n.title = relief, "Missed: "+n.title
	case d.Renotified > 0:
		n.title = "Still: " + n.title
	}
	n.facts = m.facts()
	n.lists = m.lists()
	n.remarks = m.remarks()
	return n
}

// words makes a title of a type: "Visitor spike fired".
func words(text string) string {
	text = strings.NewReplacer("_", " ", ".", " ").Replace(text)
	if text == "" {
		return "Message"
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func (m message) facts() (facts []fact) {
	d := m.Data
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact{name, value})
		}
	}
	if g := d.Group; g != nil {
		value := g.Value
		if g.More > 0 {
			value += " (and " + strconv.Itoa(g.More) + " more)"
		}
		add(words(string(g.Dimension)), value)
	}
	if d.Value != nil {
		add("Value", decimal(*d.Value))
	}
	if d.Threshold != nil {
		add("Threshold", decimal(*d.Threshold))
	}
	if d.Baseline != nil {
		add("Usual", decimal(*d.Baseline))
	}
	add("Window", span(d.Window.From, d.Window.To))
	if e := d.Episode; e != nil {
		add("Lasted", span(e.From, e.To))
		add("Peak", decimal(e.Peak)+" at "+instant(e.PeakAt))
	}
	if next := d.Next; next != nil {
		value := strconv.FormatInt(next.Milestone, 10)
		if next.ETA != nil {
			value += ", about " + instant(*next.ETA)
		}
		add("Next milestone", value)
	}
	return facts
}

func (m message) lists() (lists []list) {
	add := func(name string, lines []string) {
		if len(lines) > 0 {
			lists = append(lists, list{name, lines})
		}
	}
	var conversions []string
	for _, c := range m.Data.Conversions[:min(len(m.Data.Conversions), shownLines)] {
		parts := []string{instant(c.Time), c.Page, c.Source, c.Country}
		conversions = append(conversions, strings.Join(withoutEmpty(parts), " · "))
	}
	if more := len(m.Data.Conversions) - shownLines; more > 0 {
		conversions = append(conversions, "and "+strconv.Itoa(more)+" more")
	}
	add("Conversions", conversions)
	add("Top sources", ranking(m.Data.Context.TopSources))
	add("Top pages", ranking(m.Data.Context.TopPages))
	return lists
}

func withoutEmpty(texts []string) []string {
	kept := texts[:0]
	for _, text := range texts {
		if text != "" {
			kept = append(kept, text)
		}
	}
	return kept
}

func ranking(ranked []trigger.Ranked) (lines []string) {
	for _, r := range ranked[:min(len(ranked), shownLines)] {
		lines = append(lines, strconv.FormatInt(r.Visitors, 10)+" · "+r.Name) // the number first: a long name is cut
	}
	return lines
}

func (m message) remarks() (remarks []string) {
	d := m.Data
	if d.Late {
		remarks = append(remarks, "This comes late: the evaluation was interrupted.")
	}
	if d.Flapping {
		remarks = append(remarks, "The condition comes and goes.")
	}
	if d.Suppressed == 1 {
		remarks = append(remarks, "The cooldown kept one episode before this one quiet.")
	} else if d.Suppressed > 1 {
		remarks = append(remarks, "The cooldown kept "+strconv.Itoa(d.Suppressed)+" episodes before this one quiet.")
	}
	if d.Renotified > 0 {
		remarks = append(remarks, "Reminder "+strconv.Itoa(d.Renotified)+" of an episode that lasts.")
	}
	return remarks
}

// footer tells where and when.
func (n notice) footer() string {
	return strings.Join(withoutEmpty([]string{n.site, instant(n.at)}), " · ")
}

func decimal(n float64) string { return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64) }

const instantLayout = "2006-01-02 15:04:05 UTC"

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(instantLayout)
}

// span is a stretch of time, whose day is told once.
func span(from, to time.Time) string {
	from, to = from.UTC(), to.UTC()
	switch {
	case from.IsZero() || to.IsZero():
		return instant(to)
	case from.Equal(to):
		return instant(from)
	case from.YearDay() == to.YearDay() && from.Year() == to.Year():
		return from.Format("2006-01-02 15:04:05") + " – " + to.Format("15:04:05 UTC")
	}
	return from.Format("2006-01-02 15:04:05") + " – " + instant(to)
}

// encode writes a card; what it holds can always be written.
func encode(card any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(card); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

func more(n int) string { return "… and " + strconv.Itoa(n) + " more messages." }
