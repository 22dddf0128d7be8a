package dispatcher

import (
	"context"
	"fmt"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/format"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// unrendered is the class of attempts that ended before a request: the webhook's template made no
// body of the message.
const unrendered sender.Class = "unrendered"

// rendering makes a webhook's bodies.
type rendering struct {
	renderer format.Renderer
	fault    error // the stored template cannot be compiled: it was written for another version
}

func newRendering(row postgres.Webhook) rendering {
	renderer, err := format.Compile(format.Format(row.Format), row.Template)
	if err != nil {
		err = fmt.Errorf("the template %w", err)
	}
	return rendering{renderer, err}
}

func (r rendering) make(ctx context.Context, message []byte) ([]byte, error) {
	if r.fault != nil {
		return nil, r.fault
	}
	return r.renderer.Render(ctx, message)
}

// render makes the body of a request, or says why there will be none. A template that fails is its
// owner's to correct, so it costs an attempt: the owner sees why, and the schedule is the time to correct
// it in, because every attempt renders anew. The receiver heard nothing, so its circuit stays as it is.
func (w *webhook) render(ctx context.Context, message []byte) ([]byte, *sender.Failure) {
	if w.refused != nil {
		return nil, w.refused
	}
	body, err := w.body.make(ctx, message)
	if err != nil {
		return nil, &sender.Failure{Class: unrendered, Text: err.Error()}
	}
	return body, nil
}
