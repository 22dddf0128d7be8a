package api

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
)

// The headers of draft-ietf-httpapi-ratelimit-headers-10.
const (
	headerRateLimit  = "RateLimit"
	headerRatePolicy = "RateLimit-Policy"
)

// limiter bounds the requests of each key, by this replica: so many in a minute, a fifth of them at
// once. Keys that are unknown are counted as well, so that trying many requests with one is as bounded.
type limiter struct {
	perMinute int
	keys      *throttled.GCRARateLimiterCtx
}

// limitedKeys is how many keys are counted at a time, about 2 MB; the one that was not used for the longest is forgotten.
const limitedKeys = 10_000

// newLimiter is nil for no limit.
func newLimiter(perMinute int) (*limiter, error) {
	if perMinute == 0 {
		return nil, nil
	}
	kept, err := memstore.NewCtx(limitedKeys)
	if err != nil {
		return nil, fmt.Errorf("RATE_LIMIT_PER_MINUTE: %w", err)
	}
	keys, err := throttled.NewGCRARateLimiterCtx(kept, throttled.RateQuota{MaxRate: throttled.PerMin(perMinute), MaxBurst: max(perMinute/5-1, 0)})
	if err != nil {
		return nil, fmt.Errorf("RATE_LIMIT_PER_MINUTE: %w", err)
	}
	return &limiter{perMinute, keys}, nil
}

// take counts a request of a key, and says in the headers what is left.
func (l *limiter) take(c echo.Context, key keySum) error {
	if l == nil {
		return nil
	}
	limited, state, err := l.keys.RateLimitCtx(c.Request().Context(), hex.EncodeToString(key[:16]), 1)
	if err != nil {
		return fmt.Errorf("count requests: %w", err)
	}
	header := c.Response().Header()
	header.Set(headerRatePolicy, fmt.Sprintf(`"key";q=%d;w=60`, l.perMinute))
	header.Set(headerRateLimit, fmt.Sprintf(`"key";r=%d;t=%d`, state.Remaining, seconds(state.ResetAfter)))
	if !limited {
		return nil
	}
	wait := max(seconds(state.RetryAfter), 1)
	header.Set(echo.HeaderRetryAfter, strconv.Itoa(wait))
	return &problem{status: http.StatusTooManyRequests, sentence: fmt.Sprintf("Too many requests: wait for %d seconds.", wait)}
}

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
