package api

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// call is a request on its way to the handler of its operation: what was found out before.
type call struct {
	*operation
	access
	key       string          // as it was presented
	keySum    keySum          // of it
	body      json.RawMessage // a JSON object; nil without a body
	refused   []strict.Problem
	made      *string  // the id of what the call creates
	committed []func() // what others are told after the commit
}

type callKey struct{}

// callOf is the call of a handler's context: the middlewares of its operation saw to it.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// invalid is the answer to problems, to which it adds what the document refuses of the body's other
// fields; nil without any. The code has better sentences; the document is there so that nothing
// that it refuses can be forgotten.
func (c *call) invalid(problems []strict.Problem) error {
	for _, p := range c.refused {
		if !slices.ContainsFunc(problems, func(known strict.Problem) bool { return within(p.Field, known.Field) }) {
			problems = append(problems, p)
		}
	}
	return invalid(problems)
}

// within tells whether a field is the other one, or a part of it.
func within(field, of string) bool {
	return len(field) >= len(of) && field[:len(of)] == of && (len(field) == len(of) || of == "" || field[len(of)] == '.' || field[len(of)] == '[')
}

// afterCommit is for what must not be heard of before it is true.
func (c *call) afterCommit(tell func()) { c.committed = append(c.committed, tell) }
