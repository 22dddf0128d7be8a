package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const (
	// messagesBehind is how many messages a slow reader may be behind before its stream ends.
	messagesBehind = 1000
	// maxStreams is how many watch at the same time, of one replica: each costs some 50 kB and a subscription.
	maxStreams = 1000
	// signOfLife is less than the time after which proxies close a silent connection.
	signOfLife = 15 * time.Second
)

// StreamMessages implements rest.StrictServerInterface: the messages of a site as they fire.
func (a *api) StreamMessages(ctx context.Context, request rest.StreamMessagesRequestObject) (rest.StreamMessagesResponseObject, error) {
	by := callOf(ctx)
	if a.streams.Add(1) > maxStreams {
		a.streams.Add(-1)
		return nil, &problem{status: http.StatusTooManyRequests, sentence: "Too many are watching at the same time: try again later."}
	}
	firings, stop, err := stream.Watch(a.nats, by.site.ID, messagesBehind)
	if err != nil {
		a.streams.Add(-1)
		return nil, err
	}
	reader, writer := io.Pipe()
	go func() {
		defer a.streams.Add(-1)
		defer stop()
		writer.CloseWithError(a.tell(ctx, by, request.SiteID, firings, writer))
	}()
	return rest.StreamMessages200TextEventStreamResponse{Body: reader}, nil
}

// tell writes events until the reader goes or is too slow, the service stops, or the key may not look any more.
func (a *api) tell(ctx context.Context, by *call, site string, firings <-chan trigger.Firing, to io.Writer) error {
	life := time.NewTicker(signOfLife)
	defer life.Stop()
	_, err := io.WriteString(to, ": connected\n\n")
	for err == nil {
		select {
		case <-ctx.Done():
			return io.EOF
		case <-a.stopping:
			return io.EOF
		case firing, more := <-firings:
			if !more {
				return io.EOF
			}
			_, err = fmt.Fprintf(to, "event: message\nid: %s\ndata: %s\n\n", firing.ID, firing.Payload)
		case <-life.C:
			if _, refused := a.grant(ctx, by, site); refused != nil {
				return io.EOF
			}
			_, err = io.WriteString(to, ": alive\n\n")
		}
	}
	return err
}
