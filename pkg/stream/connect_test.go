package stream

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRedact(t *testing.T) {
	for url, want := range map[string]string{
		"nats://localhost:4222":                      "nats://localhost:4222",
		"nats://user:canary@a:4222,nats://b:4222":    "nats://xxxxx@a:4222,nats://b:4222",
		"nats://canary@a:4222, tls://x:canary@b?a=1": "nats://xxxxx@a:4222,tls://xxxxx@b",
		"nats://a:\x7f":                              "an unreadable URL",
	} {
		assert.Equal(t, want, Redact(url))
	}
}

func TestUnreachableBrokerIsNamed(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 700*time.Millisecond, errors.New("told to stop"))
	defer cancel()
	_, err := Connect(ctx, "nats://user:canary@127.0.0.1:1", "test", slog.New(slog.DiscardHandler))
	require.Error(t, err)
	assert.Contains(t, err.Error(), "NATS of NATS_URL (nats://xxxxx@127.0.0.1:1) did not answer")
	assert.Contains(t, err.Error(), "told to stop")
	assert.NotContains(t, err.Error(), "canary")
}
