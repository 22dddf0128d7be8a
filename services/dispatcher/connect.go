package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// connect waits for NATS as database.Open waits for Postgres. Once connected, it reconnects
// for ever: acknowledgements made meanwhile are kept and sent then.
func connect(ctx context.Context, url string, log *slog.Logger) (*nats.Conn, error) {
	started := time.Now()
	for {
		nc, err := nats.Connect(url,
			nats.Name("plausible-webhooks dispatcher"),
			nats.MaxReconnects(-1),
			nats.ReconnectWait(250*time.Millisecond),
			nats.IgnoreAuthErrorAbort(), // credentials may be rotated under us
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("NATS is away", "error", err.Error())
				}
			}),
		)
		if err == nil {
			return nc, nil
		}
		if elapsed := time.Since(started); elapsed > database.Patience {
			return nil, fmt.Errorf("NATS of NATS_URL (%s) did not answer: retried for %s: %w", redact(url), elapsed.Round(time.Second), err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("NATS of NATS_URL (%s) did not answer: %w (last answer: %w)", redact(url), context.Cause(ctx), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// redact is a list of server URLs without their passwords and tokens.
func redact(urls string) string {
	list := strings.Split(urls, ",")
	for i, u := range list {
		u = database.Redact(strings.TrimSpace(u))
		if scheme, rest, found := strings.Cut(u, "://"); found { // a user name alone is a token
			if at := strings.LastIndexByte(rest, '@'); at >= 0 && !strings.Contains(rest[:at], ":") {
				u = scheme + "://xxxxx" + rest[at:]
			}
		}
		list[i] = u
	}
	return strings.Join(list, ",")
}
