//go:build !docker

package devstacktest

import (
	"context"
	"errors"

	"go.uber.org/goleak"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
)

var knownLeaks []goleak.Option

// start leaves the containers to builds that ask for them: their client would more
// than double the size of every test binary.
func start(ctx context.Context, o devstack.Options) (*devstack.Stack, error) {
	if devstack.Provider() == "docker" {
		return nil, errors.New("DEVSTACK=docker: build the tests with -tags docker")
	}
	return devstack.Start(ctx, o)
}
