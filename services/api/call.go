package api

import (
	"context"
	"encoding/json"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
)

// call is a request on its way to the handler of its operation: what was found out before.
type call struct {
	*operation
	access
	key       string          // as it was presented
	keySum    keySum          // of it
	body      json.RawMessage // a JSON object; nil without a body
	made      *string         // the id of what the call creates
	committed []func()        // what others are told after the commit
}

type callKey struct{}

// callOf is the call of a handler's context: the middlewares of its operation saw to it.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// invalid is the answer to problems that the code has found; nil without any. Where it has found none, the
// document is asked, so that nothing that it refuses is ever accepted. The tests hold that the code, which
// has better sentences, finds all of it. A body with a hundred thousand faults is not worth both.
func (c *call) invalid(problems []strict.Problem) error {
	if len(problems) == 0 && c.body != nil {
		problems = check(c.operation.body, c.body)
	}
	return invalid(problems)
}

// afterCommit is for what must not be heard of before it is true.
func (c *call) afterCommit(tell func()) { c.committed = append(c.committed, tell) }
