package format

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/itchyny/gojq"
)

// The bounds of a template. Work is counted and not timed, so that what a preview shows is also
// rendered on a busy machine; the time is the last resort.
const (
	MaxTemplate = 16 << 10  // bytes
	MaxOutput   = 256 << 10 // bytes

	maxSteps   = 250_000  // of jq's machine: some 20 ms
	maxValue   = 2 << 20  // bytes of one value; see weigh
	maxMade    = 32 << 20 // bytes of all values that are made
	maxDepth   = 200      // of values within values
	maxIndex   = 10_000   // of a list: an assignment fills it up to there
	renderTime = time.Second
)

// template is a compiled jq expression. What it may use is decided in guard.go.
type template struct{ code *gojq.Code }

// turns are as many as there are processors: more templates at a time would be no faster, and only
// need more memory.
var turns = make(chan struct{}, runtime.GOMAXPROCS(0))

func compile(text string) (*template, error) {
	if text == "" {
		return nil, errors.New("is required: a jq expression that makes the body of the message")
	}
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("must have at most %d bytes", MaxTemplate)
	}
	query, err := gojq.Parse(text)
	if err != nil {
		return nil, syntaxError(text, err)
	}
	if err := guard(query); err != nil {
		return nil, err
	}
	code, err := gojq.Compile(query, append(meters, gojq.WithVariables([]string{budgetVariable}))...)
	if err != nil {
		return nil, fmt.Errorf("is not a valid jq expression: %w", err)
	}
	return &template{code}, nil
}

// syntaxError tells where the error is, as editors count.
func syntaxError(text string, err error) error {
	where := new(gojq.ParseError)
	if !errors.As(err, &where) {
		return fmt.Errorf("is not a valid jq expression: %w", err)
	}
	line, column := 1, 1
	for _, r := range text[:min(max(where.Offset-len(where.Token), 0), len(text))] {
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return fmt.Errorf("is not a valid jq expression: %w, in line %d at character %d", err, line, column)
}

func (t *template) render(ctx context.Context, message []byte) (body []byte, err error) {
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("the template had to wait too long: %w", ctx.Err())
	}
	// A whole language is at work here; if it fails, one attempt does.
	defer func() {
		if p := recover(); p != nil {
			body, err = nil, fmt.Errorf("the template broke down: %v", p)
		}
	}()
	var input any
	if err := json.Unmarshal(message, &input); err != nil {
		return nil, fmt.Errorf("the message is not JSON: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, renderTime)
	defer cancel()
	b := newBudget(ctx)
	results := t.code.RunWithContext(b, input, b)
	value, some := results.Next()
	if err, failed := value.(error); failed {
		return nil, b.explain(err)
	}
	if !some {
		return nil, errors.New("the template makes no value of this message; it must make exactly one")
	}
	more, some := results.Next()
	if err, failed := more.(error); failed {
		return nil, b.explain(err)
	}
	if some {
		return nil, errors.New("the template makes several values of this message; it must make exactly one")
	}
	if err := b.charge(value); err != nil { // a part of the message that passed through
		return nil, b.explain(err)
	}
	body, err = gojq.Marshal(value)
	if err == nil && len(body) > MaxOutput {
		err = fmt.Errorf("the template makes %d bytes of this message; at most %d are sent", len(body), MaxOutput)
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// explain makes a sentence of an error that ended a template.
func (b *budget) explain(err error) error {
	if b.exceeded != nil {
		err = b.exceeded
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the template needs more than %s", renderTime)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("the template was interrupted: %w", err)
	}
	text := err.Error()
	if len(text) > 300 {
		text = clip(text, 300, plain)
	}
	return fmt.Errorf("the template failed: %s", text)
}
