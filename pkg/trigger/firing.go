package trigger

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Firing is one occurrence of a trigger's condition becoming true, or resolving: the message
// on JetStream. The payload is opaque to whoever carries it, and sent byte for byte.
type Firing struct {
	ID           string // derived by FiringID; also Nats-Msg-Id, and webhook-id when sent alone
	Slot         time.Time
	SiteID       int64
	WebhookID    string
	TriggerID    string
	TriggerType  Type
	Type         string // <trigger type>.fired or .resolved
	Payload      []byte // a Message as JSON
	TraceContext string // W3C traceparent of the slot, or empty
}

// FactID derives an id from facts alone: never from values, which late rows change, and never from a
// clock. Every replica and every rerun derives the same one.
func FactID(prefix string, facts ...any) string {
	text := []byte("v1")
	for _, fact := range facts {
		text = fmt.Appendf(text, "|%v", fact)
	}
	sum := sha256.Sum256(text)
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:26])
}

// FiringID is the id of what a trigger's revision tells of an anchor.
func FiringID(triggerID string, revision int, transition Transition, anchor string) string {
	return FactID("msg_", triggerID, revision, transition, anchor)
}

// Message is what a receiver gets: the standard payload of the contract.
type Message struct {
	Type      string      `json:"type"`
	Timestamp time.Time   `json:"timestamp"` // the slot
	Data      MessageData `json:"data"`
}

// MessageData tells what happened, where, and why.
type MessageData struct {
	ID           string         `json:"id"`
	Site         MessageSite    `json:"site"`
	WebhookID    string         `json:"webhook_id"`
	Trigger      MessageTrigger `json:"trigger"`
	Value        float64        `json:"value"`
	Threshold    float64        `json:"threshold"`
	Window       Window         `json:"window"`
	Explanation  string         `json:"explanation,omitempty"`
	Baseline     *float64       `json:"baseline,omitempty"`
	Group        *Group         `json:"group,omitempty"`
	Next         *Next          `json:"next,omitempty"`
	Late         bool           `json:"late,omitempty"`
	Missed       bool           `json:"missed,omitempty"`
	Suppressed   int            `json:"suppressed,omitempty"`
	Flapping     bool           `json:"flapping,omitempty"`
	Renotified   int            `json:"renotified,omitempty"`
	Episode      *EndedEpisode  `json:"episode,omitempty"`
	Conversions  []Conversion   `json:"conversions,omitempty"`
	Context      *Context       `json:"context,omitempty"`
	DashboardURL string         `json:"dashboard_url"`
}

// MessageSite is the site as Plausible knows it.
type MessageSite struct {
	ID     int64  `json:"id"`
	Domain string `json:"domain"`
}

// MessageTrigger is the trigger as it was when it fired.
type MessageTrigger struct {
	ID     string          `json:"id"`
	Name   string          `json:"name"`
	Type   Type            `json:"type"`
	Config json.RawMessage `json:"config"`
}

// EndedEpisode tells the reader of a message that is resolved or missed what is over.
type EndedEpisode struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"` // when the condition was last seen to hold
	Peak   float64   `json:"peak"`
	PeakAt time.Time `json:"peak_at"`
}

// Context is what was going on in the window.
type Context struct {
	TopSources []Ranked `json:"top_sources"`
	TopPages   []Ranked `json:"top_pages"`
	Chart      []Point  `json:"chart,omitempty"` // the value in the windows before, the oldest first
}

// Point is the value of the window that ended then.
type Point struct {
	At    time.Time `json:"at"`
	Value float64   `json:"value"`
}

// Ranked is one value of a dimension with its unique visitors, or with the number of its events
// where the ranking is of events.
type Ranked struct {
	Name     string `json:"name"`
	Visitors int64  `json:"visitors"`
}

// Conversion is one conversion of a goal.
type Conversion struct {
	Time    time.Time         `json:"time"`
	Page    string            `json:"page"`
	Source  string            `json:"source,omitempty"`
	Country string            `json:"country,omitempty"`
	Props   map[string]string `json:"props,omitempty"`
}
