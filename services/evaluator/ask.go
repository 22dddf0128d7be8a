package evaluator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
)

const (
	// previewsAtOnce bounds what previews take from the slots.
	previewsAtOnce = 2
	explainsAtOnce = 4
)

// serve answers what the api asks, until ctx ends. All replicas share the questions.
func serve(ctx context.Context, nc *nats.Conn, e *evaluator, log *slog.Logger) error {
	service, err := micro.AddService(nc, micro.Config{
		Name: stream.EvaluatorService, Version: "1.0.0", Description: "Tells why a trigger did not fire, and what an unsaved one would have done",
	})
	if err != nil {
		return fmt.Errorf("offer the service %s: %w", stream.EvaluatorService, err)
	}
	a := &answering{ctx: ctx, log: log}
	endpoints := map[string]micro.Handler{
		"explain": handler(a, explainsAtOnce, e.explain),
		"preview": handler(a, previewsAtOnce, e.preview),
	}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		if err := service.AddEndpoint(name, endpoints[name], micro.WithEndpointSubject(stream.EvaluatorEndpoints[name])); err != nil {
			return fmt.Errorf("offer the endpoint %s: %w", name, err)
		}
	}
	<-ctx.Done()
	err = service.Stop()
	a.running.Wait()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("stop the service: %w", err)
	}
	return nil
}

// answering is the questions that are being answered.
type answering struct {
	ctx     context.Context
	log     *slog.Logger
	running sync.WaitGroup
}

// handler answers up to so many questions at once, each within stream.PreviewLimit. More are refused: whoever waits
// for a reply does not wait long.
func handler[Q, A any](a *answering, atOnce int, answer func(context.Context, Q) (A, error)) micro.HandlerFunc {
	free := make(chan struct{}, atOnce)
	return func(r micro.Request) {
		select {
		case free <- struct{}{}:
		default:
			a.refuse(r, &stream.Refusal{Code: stream.RefusedBusy, Sentence: "Too many are asking at the same time: try again in some seconds."})
			return
		}
		a.running.Go(func() {
			reply := work(a, r, answer)
			<-free // before the reply: whoever has it may ask again at once
			reply()
		})
	}
}

// work finds the answer, and returns how it is sent.
func work[Q, A any](a *answering, r micro.Request, answer func(context.Context, Q) (A, error)) (reply func()) {
	refuse := func(refusal *stream.Refusal) func() { return func() { a.refuse(r, refusal) } }
	defer func() {
		if fault := recover(); fault != nil {
			a.log.Error("a question could not be answered", "event", "panic", "subject", r.Subject(), "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
			reply = refuse(&stream.Refusal{Code: stream.RefusedFailed, Sentence: "The evaluator failed by a fault of its program; its log tells more."})
		}
	}()
	var question Q
	if err := json.Unmarshal(r.Data(), &question); err != nil {
		return refuse(&stream.Refusal{Code: stream.RefusedInvalid, Sentence: "The question is not the expected JSON object."})
	}
	ctx, cancel := context.WithTimeout(a.ctx, stream.PreviewLimit)
	defer cancel()
	answered, err := answer(ctx, question)
	var encoded []byte
	if err == nil {
		encoded, err = json.Marshal(answered)
	}
	if err != nil {
		return refuse(a.refusalOf(ctx, r.Subject(), err))
	}
	return func() {
		if err := r.Respond(encoded); err != nil {
			a.refuse(r, a.refusalOf(a.ctx, r.Subject(), err))
		}
	}
}

// refusalOf is what the one who asked is told of an error. Only what was meant for users is told in full.
func (a *answering) refusalOf(ctx context.Context, subject string, err error) *stream.Refusal {
	refusal := new(stream.Refusal)
	switch {
	case errors.As(err, &refusal):
		return refusal
	case a.ctx.Err() != nil:
		return &stream.Refusal{Code: stream.RefusedUnavailable, Sentence: "The evaluator is stopping: try again."}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &stream.Refusal{Code: stream.RefusedTooLong, Sentence: "It took longer than 10 seconds: choose a shorter period."}
	}
	a.log.Warn("a question could not be answered", "event", "ask", "subject", subject, "error", err.Error())
	return &stream.Refusal{Code: stream.RefusedFailed, Sentence: "The evaluator could not find out; its log tells more."}
}

func (a *answering) refuse(r micro.Request, refusal *stream.Refusal) {
	if err := r.Error(refusal.Code, refusal.Sentence, refusal.Problems); err != nil && a.ctx.Err() == nil {
		a.log.Warn("a reply could not be sent", "event", "ask", "subject", r.Subject(), "error", err.Error())
	}
}

// explain tells what came of a trigger's slots.
func (e *evaluator) explain(ctx context.Context, request stream.ExplainRequest) (stream.Explanation, error) {
	to := request.To.UTC()
	if request.To.IsZero() {
		to = time.Now().UTC()
	}
	from := request.From.UTC()
	if request.From.IsZero() {
		from = to.Add(-24 * time.Hour)
	}
	if from.After(to) || request.TriggerID == "" {
		return stream.Explanation{}, refuse(stream.RefusedInvalid, "A trigger must be named, and the period must end after it begins.")
	}
	explained := stream.Explanation{Runs: []stream.ResultRun{}}
	state, evaluated, err := e.store.TriggerState(ctx, request.TriggerID)
	if err != nil {
		return explained, err
	}
	if evaluated {
		explained.State = &stream.Standing{Status: state.Status, Value: state.Value, Threshold: state.Threshold, Since: state.Since, Explanation: state.Explanation}
		if !state.LastFiredAt.IsZero() {
			explained.State.LastFiredAt = &state.LastFiredAt
		}
	}
	byHour, until, err := e.results.between(ctx, request.TriggerID, from, to)
	if err != nil {
		return explained, err
	}
	explained.CompleteUntil = until
	for _, hour := range slices.Sorted(maps.Keys(byHour)) {
		for _, r := range byHour[hour] {
			if run, within := r.between(time.Unix(hour*hourSeconds, 0).UTC(), from, to); within {
				explained.Runs = append(explained.Runs, run)
			}
		}
	}
	if cut := len(explained.Runs) - stream.MostRuns; cut > 0 {
		explained.Runs, explained.Truncated = explained.Runs[cut:], true
	}
	return explained, nil
}
