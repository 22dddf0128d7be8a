package api

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/stream"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const (
	// messagesWaiting is how many messages a slow reader may be behind before its stream ends.
	messagesWaiting = 1000
	// signOfLife is less than the time after which proxies close a silent connection.
	signOfLife = 15 * time.Second
)

// StreamMessages implements rest.StrictServerInterface: the messages of a site as they fire.
func (a *api) StreamMessages(ctx context.Context, request rest.StreamMessagesRequestObject) (rest.StreamMessagesResponseObject, error) {
	by := callOf(ctx)
	heard := make(chan *nats.Msg, messagesWaiting)
	subscription, err := a.nats.ChanSubscribe(stream.FiringsOf(by.site.ID), heard)
	if err != nil {
		return nil, fmt.Errorf("subscribe to the site's messages: %w", err)
	}
	reader, writer := io.Pipe()
	go func() {
		defer func() { _ = subscription.Unsubscribe() }()
		writer.CloseWithError(a.tellMessages(ctx, by, request.SiteID, heard, writer))
	}()
	return rest.StreamMessages200TextEventStreamResponse{Body: reader}, nil
}

// tellMessages writes events until the reader goes, the service stops, or the key may not look any more.
func (a *api) tellMessages(ctx context.Context, by *call, site string, heard <-chan *nats.Msg, to io.Writer) error {
	life := time.NewTicker(signOfLife)
	defer life.Stop()
	_, err := io.WriteString(to, ": connected\n\n")
	for err == nil {
		select {
		case <-ctx.Done():
			return io.EOF
		case <-a.stopping:
			return io.EOF
		case m := <-heard:
			if len(heard) == messagesWaiting-1 {
				return io.EOF // what came behind is lost, so the reader is to notice
			}
			if firing, undecoded := stream.Decode(m.Header, m.Data); undecoded == nil {
				_, err = fmt.Fprintf(to, "event: message\nid: %s\ndata: %s\n\n", firing.ID, firing.Payload)
			}
		case <-life.C:
			if _, refused := a.grant(ctx, by, site); refused != nil {
				return io.EOF
			}
			_, err = io.WriteString(to, ": alive\n\n")
		}
	}
	return err
}
