package patience

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("away")

func TestAServerThatComesLaterIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, tries := time.Now(), 0
		require.NoError(t, Await(t.Context(), func(context.Context) error {
			if tries++; tries < 10 {
				return errAway
			}
			return nil
		}))
		require.Equal(t, 9*between, time.Since(started))
	})
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		err := Await(t.Context(), func(context.Context) error { return errAway })
		require.ErrorIs(t, err, errAway)
		require.EqualError(t, err, "retried for 31s: away") // the first try after the limit
		require.Equal(t, Limit+between, time.Since(started))
	})
}

func TestAStopEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("told to stop"))
		defer cancel()
		err := Await(ctx, func(context.Context) error { return errAway })
		require.ErrorIs(t, err, errAway)
		require.EqualError(t, err, "told to stop (last answer: away)")
	})
}
