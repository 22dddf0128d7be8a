//go:build docker

package devstacktest

import (
	"context"

	"go.uber.org/goleak"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/docker"
)

// knownLeaks are those of the connection to the container that removes the others
// when this process is gone: it stays open on purpose.
var knownLeaks = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/testcontainers/testcontainers-go.(*Reaper).connect.func1"),
	goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
	goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
}

func start(ctx context.Context, o devstack.Options) (*devstack.Stack, error) {
	if devstack.Provider() == "docker" {
		return docker.Start(ctx, o)
	}
	return devstack.Start(ctx, o)
}
