package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// What the evaluator is asked over core NATS, by request and reply: it alone reads Plausible's
// ClickHouse. Any replica answers.
const (
	EvaluatorService = "evaluator" // its name as a micro service

	explainSubject = "evaluator.explain"
	previewSubject = "evaluator.preview"
)

// EvaluatorEndpoints are the subjects of the service, by the names of its endpoints.
var EvaluatorEndpoints = map[string]string{"explain": explainSubject, "preview": previewSubject}

// PreviewLimit is how long a preview takes at most; whoever asks waits a little longer.
const PreviewLimit = 10 * time.Second

// replyMargin is what a reply needs on its way, and to wait for a broker that is elected anew.
const replyMargin = 3 * time.Second

// ExplainRequest asks what came of a trigger's slots, of which 7 days are known.
type ExplainRequest struct {
	TriggerID string    `json:"trigger_id"`
	From      time.Time `json:"from,omitzero"` // default: 24 hours before To
	To        time.Time `json:"to,omitzero"`   // default: now
}

// Explanation tells what came of a trigger's slots.
type Explanation struct {
	State *Standing   `json:"state"` // null: it was never evaluated
	Runs  []ResultRun `json:"runs"`  // the oldest first
	// CompleteUntil is the newest slot known to who answered: results are stored with up to 5 minutes'
	// delay, and the newest are known to one replica alone.
	CompleteUntil time.Time `json:"complete_until,omitzero"`
	Truncated     bool      `json:"truncated"` // older runs were left out
}

// Standing is where a trigger stands.
type Standing struct {
	Status      trigger.Status `json:"status"`
	Value       *float64       `json:"value"`
	Threshold   *float64       `json:"threshold"`
	Since       time.Time      `json:"since"`
	LastFiredAt *time.Time     `json:"last_fired_at"`
	Explanation string         `json:"explanation"`
}

// ResultRun is consecutive slots with the same result, both ends included.
type ResultRun struct {
	From        time.Time      `json:"from"`
	To          time.Time      `json:"to"`
	StepSeconds int            `json:"step_seconds"`
	Value       *float64       `json:"value"`
	Threshold   *float64       `json:"threshold"`
	Status      trigger.Status `json:"status"`
}

// PreviewRequest asks what an unsaved trigger would have done.
type PreviewRequest struct {
	SiteID          int64           `json:"site_id"`
	Type            trigger.Type    `json:"type"`
	Config          json.RawMessage `json:"config,omitempty"`
	Filters         json.RawMessage `json:"filters,omitempty"`
	CooldownSeconds int64           `json:"cooldown_seconds,omitempty"`
	NotifyResolved  bool            `json:"notify_resolved,omitempty"`
	From            time.Time       `json:"from,omitzero"` // default: 30 days before To; at most 90
	To              time.Time       `json:"to,omitzero"`   // default: the newest closed slot
	PerMonth        float64         `json:"per_month,omitempty"`
}

// Preview is what an unsaved trigger would have done.
type Preview struct {
	From        time.Time        `json:"from"`
	To          time.Time        `json:"to"`
	StepSeconds int              `json:"step_seconds"`
	Points      []PreviewPoint   `json:"points"`  // at most MostPoints, the extremes among them
	Firings     []PreviewFiring  `json:"firings"` // at most MostFirings, the newest
	Count       int              `json:"count"`   // of all fired ones; resolved ones do not count
	Suggestion  *SuggestedConfig `json:"suggestion"`
	Truncated   bool             `json:"truncated"` // older firings were left out
}

// The bounds of a preview, which keep it below a broker's usual 1 MiB.
const (
	MostPoints  = 2000
	MostFirings = 500
	MostRuns    = 5000 // of an explanation
)

// PreviewPoint is what came of a slot.
type PreviewPoint struct {
	At        time.Time      `json:"at"`
	Value     *float64       `json:"value"`
	Threshold *float64       `json:"threshold"`
	Status    trigger.Status `json:"status"`
}

// PreviewFiring is a message that would have been sent.
type PreviewFiring struct {
	At          time.Time          `json:"at"`
	Transition  trigger.Transition `json:"transition"`
	Value       float64            `json:"value"`
	Threshold   float64            `json:"threshold"`
	Explanation string             `json:"explanation"`
}

// SuggestedConfig is the value of a field of the config with which the trigger would have fired about
// as often as was wanted.
type SuggestedConfig struct {
	Field           string  `json:"field"`
	Value           float64 `json:"value"`
	FiringsPerMonth float64 `json:"firings_per_month"`
}

// The codes of refusals, as HTTP has them.
const (
	RefusedInvalid     = "400" // the description is a sentence for the user; Problems are its details
	RefusedImpossible  = "422" // valid, but it cannot be previewed
	RefusedBusy        = "429"
	RefusedFailed      = "500"
	RefusedUnavailable = "503" // no evaluator is there
	RefusedTooLong     = "504"
)

// Refusal is the evaluator's answer where it has none.
type Refusal struct {
	Code     string
	Sentence string
	Problems json.RawMessage // of an invalid request: a list of strict.Problem
}

// Error implements error.
func (r *Refusal) Error() string { return "the evaluator refused (" + r.Code + "): " + r.Sentence }

// AskExplain asks the evaluators what came of a trigger's slots. An error is a *Refusal where the evaluator,
// or its absence, is the reason.
func AskExplain(ctx context.Context, nc *nats.Conn, request ExplainRequest) (Explanation, error) {
	return ask[Explanation](ctx, nc, explainSubject, request)
}

// AskPreview asks the evaluators what an unsaved trigger would have done, as AskExplain does.
func AskPreview(ctx context.Context, nc *nats.Conn, request PreviewRequest) (Preview, error) {
	return ask[Preview](ctx, nc, previewSubject, request)
}

func ask[A any](ctx context.Context, nc *nats.Conn, subject string, request any) (answer A, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return answer, fmt.Errorf("ask %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, PreviewLimit+replyMargin)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, subject, body)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return answer, &Refusal{Code: RefusedUnavailable, Sentence: "No evaluator is running."}
	case errors.Is(err, context.DeadlineExceeded):
		return answer, &Refusal{Code: RefusedTooLong, Sentence: "The evaluator did not answer in time."}
	case err != nil:
		return answer, fmt.Errorf("ask %s: %w", subject, err)
	}
	if code := reply.Header.Get(micro.ErrorCodeHeader); code != "" {
		return answer, &Refusal{Code: code, Sentence: reply.Header.Get(micro.ErrorHeader), Problems: reply.Data}
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return answer, fmt.Errorf("ask %s: read the answer: %w", subject, err)
	}
	return answer, nil
}
