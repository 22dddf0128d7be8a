package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/patience"
)

// Connect waits for the broker's first answer. Afterwards the connection mends itself for ever:
// a restarted broker is found again. name identifies the client in the broker's monitoring.
func Connect(ctx context.Context, rawURL, name string, log *slog.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.IgnoreAuthErrorAbort(), // credentials may be rotated under us
		nats.Timeout(5 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the connection to NATS was lost", "error", err.Error())
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("the connection to NATS is back") }),
	}
	var nc *nats.Conn
	err := patience.Await(ctx, func(context.Context) (err error) {
		nc, err = nats.Connect(rawURL, options...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("NATS of NATS_URL (%s) did not answer: %w", Redact(rawURL), err)
	}
	return nc, nil
}

// Redact is a list of server URLs without their passwords and tokens, fit for logs and errors.
func Redact(rawURLs string) string {
	servers := strings.Split(rawURLs, ",")
	for i, raw := range servers {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil {
			servers[i] = "an unreadable URL"
			continue
		}
		if u.User != nil { // a name alone is a token
			u.User = url.User("xxxxx")
		}
		u.RawQuery, u.Fragment = "", ""
		servers[i] = u.String()
	}
	return strings.Join(servers, ",")
}
