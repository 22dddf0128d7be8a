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
	// changesPause is how often a stream tells of changes at most: each makes a page read a list.
	changesPause = time.Second
	// signOfLife is less than the time after which proxies close a silent connection.
	signOfLife = 15 * time.Second
)

// StreamMessages implements rest.StrictServerInterface: the messages of a site as they fire.
func (a *api) StreamMessages(ctx context.Context, request rest.StreamMessagesRequestObject) (rest.StreamMessagesResponseObject, error) {
	open := func() (<-chan trigger.Firing, func(), error) {
		return stream.Watch(a.nats, callOf(ctx).site.ID, messagesBehind)
	}
	events, err := watch(ctx, a, request.SiteID, open, func(to io.Writer, firing trigger.Firing) error {
		_, err := fmt.Fprintf(to, "event: message\nid: %s\ndata: %s\n\n", firing.ID, firing.Payload)
		return err
	})
	return rest.StreamMessages200TextEventStreamResponse{Body: events}, err
}

// StreamChanges implements rest.StrictServerInterface: which deliveries of a webhook change.
func (a *api) StreamChanges(ctx context.Context, request rest.StreamChangesRequestObject) (rest.StreamChangesResponseObject, error) {
	if _, err := a.store.Webhook(ctx, callOf(ctx).site.ID, request.ID); err != nil {
		return nil, err
	}
	open := func() (<-chan []string, func(), error) {
		return stream.WatchDeliveries(a.nats, request.ID, changesPause)
	}
	events, err := watch(ctx, a, request.SiteID, open, func(to io.Writer, ids []string) error {
		_, err := fmt.Fprintf(to, "event: changed\ndata: %s\n\n", mustMarshal(map[string][]string{"delivery_ids": ids}))
		return err
	})
	return rest.StreamChanges200TextEventStreamResponse{Body: events}, err
}

// watch makes a stream of server-sent events of what open gives.
func watch[T any](ctx context.Context, a *api, site string, open func() (<-chan T, func(), error), write func(io.Writer, T) error) (io.Reader, error) {
	if a.streams.Add(1) > maxStreams {
		a.streams.Add(-1)
		return nil, &problem{status: http.StatusTooManyRequests, sentence: "Too many are watching at the same time: try again later."}
	}
	source, stop, err := open()
	if err != nil {
		a.streams.Add(-1)
		return nil, err
	}
	reader, writer := io.Pipe()
	go func() {
		defer a.streams.Add(-1)
		defer stop()
		writer.CloseWithError(tell(ctx, a, site, source, writer, write))
	}()
	return reader, nil
}

// tell writes events until the reader goes or is too slow, the service stops, or the key may not look any more.
func tell[T any](ctx context.Context, a *api, site string, source <-chan T, to io.Writer, write func(io.Writer, T) error) error {
	life := time.NewTicker(signOfLife)
	defer life.Stop()
	_, err := io.WriteString(to, ": connected\n\n")
	for err == nil {
		select {
		case <-ctx.Done():
			return io.EOF
		case <-a.stopping:
			return io.EOF
		case event, more := <-source:
			if !more {
				return io.EOF
			}
			err = write(to, event)
		case <-life.C:
			if _, refused := a.grant(ctx, callOf(ctx), site); refused != nil {
				return io.EOF
			}
			_, err = io.WriteString(to, ": alive\n\n")
		}
	}
	return err
}
