// Package stream is the JetStream contract between the services: the only place that spells
// a subject, a header or a stream's settings.
//
// A firing travels as the standard message's bytes, untouched, with what the dispatcher must
// know of it in headers: the payload needs no parsing on its way.
//
// What the api asks of the dispatchers is a row of the database first: a message on COMMANDS names
// the row, and only wakes.
//
// What operators should know of the system itself, such as that ingestion is silent, is in a stream
// of its own, SYSTEM, for whoever subscribes: no service consumes it.
package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/patience"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// Names in the broker.
const (
	Firings    = "FIRINGS"    // the stream: firing.<site_id>.<trigger_type>
	Commands   = "COMMANDS"   // the stream: command.<kind>, as command.retry
	Dispatcher = "dispatcher" // the durable pull consumer of each, shared by all dispatchers
	System     = "SYSTEM"     // the stream: system.<kind>, as system.ingestion.silent

	firingSubjects  = "firing.>"
	commandSubjects = "command.>"
	systemSubjects  = "system.>"
)

// DuplicateWindow is how long JetStream drops a second message with the id of an earlier one.
const DuplicateWindow = 20 * time.Minute

// AckWait is after how long without an acknowledgement or a sign of progress a message is
// given to another dispatcher. A dispatcher gives that sign every third of it, for as long as
// an attempt and its recording take; so this is how long a killed one's messages wait.
const AckWait = 20 * time.Second

// The headers of a firing, besides Nats-Msg-Id and traceparent.
const (
	headerSlot    = "Firing-Slot" // RFC 3339
	headerType    = "Firing-Type"
	headerSite    = "Firing-Site"
	headerTrigger = "Firing-Trigger"
	headerWebhook = "Firing-Webhook"
	headerTrace   = "traceparent"
)

// Options are the operator's choices; zero values mean the defaults.
type Options struct {
	Replicas int   // 1; 3 on a cluster
	MaxBytes int64 // 1 GiB
}

// Ensure creates the streams and the consumer of FIRINGS, or checks those that exist: an operator
// may have changed them, but not what the guarantees rest on. A broker that restarts meanwhile loses what it was
// asked, and is asked again.
func Ensure(ctx context.Context, js jetstream.JetStream, o Options) (s jetstream.Stream, consumer jetstream.Consumer, err error) {
	var refused error
	err = patience.Await(ctx, func(ctx context.Context) (err error) {
		if s, consumer, err = ensureAll(ctx, js, o); !errors.Is(err, context.DeadlineExceeded) {
			refused, err = err, nil
		}
		return err
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, nil, err
	}
	return s, consumer, nil
}

func ensureAll(ctx context.Context, js jetstream.JetStream, o Options) (jetstream.Stream, jetstream.Consumer, error) {
	wanted := jetstream.StreamConfig{
		Name:        Firings,
		Description: "Firings of triggers, from the evaluator to the dispatchers",
		Subjects:    []string{firingSubjects},
		Storage:     jetstream.FileStorage,
		Replicas:    max(o.Replicas, 1),
		Duplicates:  DuplicateWindow,
		// A full stream refuses a firing, which then waits in the evaluator's outbox.
		Discard:  jetstream.DiscardNew,
		MaxBytes: o.MaxBytes,
		MaxAge:   7 * 24 * time.Hour,
	}
	if wanted.MaxBytes == 0 {
		wanted.MaxBytes = 1 << 30
	}
	s, err := ensure(ctx, js, wanted)
	if err != nil {
		return nil, nil, err
	}
	if config := s.CachedInfo().Config; config.MaxBytes > 0 && config.Discard != jetstream.DiscardNew {
		return nil, nil, fmt.Errorf("stream %s drops old messages when it is full, it needs the discard policy new", Firings)
	}
	_, err = ensure(ctx, js, jetstream.StreamConfig{
		Name:        System,
		Description: "What operators should know of Plausible Webhooks itself",
		Subjects:    []string{systemSubjects},
		Storage:     jetstream.FileStorage,
		Replicas:    max(o.Replicas, 1),
		Duplicates:  DuplicateWindow,
		// Perhaps nobody reads it: the new matters more than the old, which the evaluator's table has
		// for longer. An event has half a kilobyte, so this is room for tens of thousands.
		Discard:  jetstream.DiscardOld,
		MaxBytes: 16 << 20,
		MaxAge:   30 * 24 * time.Hour,
	})
	if err != nil {
		return nil, nil, err
	}
	_, err = ensure(ctx, js, jetstream.StreamConfig{
		Name:        Commands,
		Description: "Ids of commands, from the api to the dispatchers",
		Subjects:    []string{commandSubjects},
		Storage:     jetstream.FileStorage,
		Replicas:    max(o.Replicas, 1),
		Duplicates:  DuplicateWindow,
		// Whatever is dropped, the row is found.
		Discard:  jetstream.DiscardOld,
		MaxBytes: 16 << 20,
		MaxAge:   time.Hour,
	})
	if err != nil {
		return nil, nil, err
	}
	consumer, err := s.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       Dispatcher,
		Description:   "All dispatchers share it",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxAckPending: 20_000,
		MaxDeliver:    -1, // our own faults never cost a firing; what cannot be decoded is terminated
	})
	if err != nil {
		return nil, nil, fmt.Errorf("consumer %s of stream %s: %w", Dispatcher, Firings, err)
	}
	return s, consumer, nil
}

// CommandConsumer creates the consumer of COMMANDS, or finds it.
func CommandConsumer(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	consumer, err := js.CreateOrUpdateConsumer(ctx, Commands, jetstream.ConsumerConfig{
		Durable:     Dispatcher,
		Description: "All dispatchers share it",
		AckPolicy:   jetstream.AckExplicitPolicy,
		AckWait:     AckWait,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer %s of stream %s: %w", Dispatcher, Commands, err)
	}
	return consumer, nil
}

// ensure creates a stream, or checks the one that exists.
func ensure(ctx context.Context, js jetstream.JetStream, wanted jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := js.Stream(ctx, wanted.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = js.CreateStream(ctx, wanted)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another service was faster
			s, err = js.Stream(ctx, wanted.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", wanted.Name, err)
	}
	switch c := s.CachedInfo().Config; {
	case c.Duplicates < 10*time.Minute:
		return nil, fmt.Errorf("stream %s has a duplicate window of %s, it needs 10 minutes or more", c.Name, c.Duplicates)
	case c.Storage != jetstream.FileStorage:
		return nil, fmt.Errorf("stream %s is kept in memory, it needs file storage", c.Name)
	}
	return s, nil
}

// isToken tells what may stand between the dots of a subject, for ids and trigger types. Each message
// is asked four times, so there are no regular expressions here.
func isToken(s string) bool {
	return consists(s, 200, func(b byte) bool {
		return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b == '-'
	})
}

// isTypeName tells what a message's type looks like: visitor_spike.fired.
func isTypeName(s string) bool {
	of, transition, found := strings.Cut(s, ".")
	return found && consists(of, 60, func(b byte) bool { return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '_' }) &&
		consists(transition, 20, func(b byte) bool { return 'a' <= b && b <= 'z' })
}

// consists tells whether a text has 1 to most bytes, all of them allowed.
func consists(s string, most int, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// Encode makes the message of a firing.
func Encode(f trigger.Firing) *nats.Msg {
	m := nats.NewMsg("firing." + strconv.FormatInt(f.SiteID, 10) + "." + string(f.TriggerType))
	m.Data = f.Payload
	m.Header.Set(jetstream.MsgIDHeader, f.ID)
	m.Header.Set(headerSlot, f.Slot.UTC().Format(time.RFC3339))
	m.Header.Set(headerType, f.Type)
	m.Header.Set(headerSite, strconv.FormatInt(f.SiteID, 10))
	m.Header.Set(headerTrigger, f.TriggerID)
	m.Header.Set(headerWebhook, f.WebhookID)
	if f.TraceContext != "" {
		m.Header.Set(headerTrace, f.TraceContext)
	}
	return m
}

// EncodeSystem makes the message of a system event: a JSON object of a kind such as
// "ingestion.silent".
func EncodeSystem(id, kind string, payload []byte) *nats.Msg {
	m := nats.NewMsg("system." + kind)
	m.Data = payload
	m.Header.Set(jetstream.MsgIDHeader, id)
	return m
}

// The kinds of commands, as the database has them too.
const (
	TestCommand    = "test"
	RetryCommand   = "retry"
	RecoverCommand = "recover"
)

// EncodeCommand makes the message that wakes the dispatchers for a command, once its row is
// committed.
func EncodeCommand(kind, id string) *nats.Msg {
	m := nats.NewMsg("command." + kind)
	m.Header.Set(jetstream.MsgIDHeader, id)
	return m
}

// DecodeCommand reads a command's id.
func DecodeCommand(header nats.Header) (string, error) {
	id := header.Get(jetstream.MsgIDHeader)
	if !isToken(id) {
		return "", fmt.Errorf("header %s is %q, not an id", jetstream.MsgIDHeader, id)
	}
	return id, nil
}

// Decode reads what Encode made. An error means that the message can never be delivered.
// TriggerType stays in the subject: nobody past this point needs it apart from Type.
func Decode(header nats.Header, data []byte) (trigger.Firing, error) {
	f := trigger.Firing{
		ID:           header.Get(jetstream.MsgIDHeader),
		Type:         header.Get(headerType),
		TriggerID:    header.Get(headerTrigger),
		WebhookID:    header.Get(headerWebhook),
		TraceContext: header.Get(headerTrace),
		Payload:      data,
	}
	for _, id := range [...][2]string{{jetstream.MsgIDHeader, f.ID}, {headerTrigger, f.TriggerID}, {headerWebhook, f.WebhookID}} {
		if !isToken(id[1]) {
			return trigger.Firing{}, fmt.Errorf("header %s is %q, not an id", id[0], id[1])
		}
	}
	if !isTypeName(f.Type) {
		return trigger.Firing{}, fmt.Errorf("header %s is %q, not a message type", headerType, f.Type)
	}
	var err error
	if f.Slot, err = time.Parse(time.RFC3339, header.Get(headerSlot)); err != nil {
		return trigger.Firing{}, fmt.Errorf("header %s is %q, not a time", headerSlot, header.Get(headerSlot))
	}
	if f.SiteID, err = strconv.ParseInt(header.Get(headerSite), 10, 64); err != nil {
		return trigger.Firing{}, fmt.Errorf("header %s is %q, not a site's id", headerSite, header.Get(headerSite))
	}
	if len(data) == 0 || data[0] != '{' || data[len(data)-1] != '}' {
		return trigger.Firing{}, fmt.Errorf("the body of %d bytes is not a JSON object", len(data))
	}
	return f, nil
}

// The kinds of configuration whose changes are announced over core NATS. A lost announcement
// costs nothing but time: every cache is also reloaded periodically.
const (
	ChangedWebhook = "changed.webhook"
	ChangedTrigger = "changed.trigger"

	// AllChanges matches every announcement; Changed reads its subject.
	AllChanges = "changed.*.*"
)

// Announce tells the other services that a webhook or a trigger was created, changed or removed.
func Announce(nc *nats.Conn, kind, id string) error {
	if err := nc.Publish(kind+"."+id, nil); err != nil {
		return fmt.Errorf("announce %s.%s: %w", kind, id, err)
	}
	return nil
}
