package dispatcher

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// decision is what follows an attempt.
type decision string

const (
	delivered decision = "delivered"
	retry     decision = "retry"
	dead      decision = "dead"     // no attempt is left
	disabled  decision = "disabled" // dead, and the receiver wants nothing more
)

// verdict is a decision, with its reason in a sentence for the webhook's owner; empty when delivered.
type verdict struct {
	decision decision
	retryAt  time.Time // of a retry
	reason   string

	overloaded bool          // the receiver says so: its webhook is slowed down
	putOff     time.Duration // and asks for this pause, of everything
}

// schedule is how long a delivery waits after its first, second, … failed attempt. After the
// last one there is no other: 11 attempts over three days.
var schedule = [...]time.Duration{
	5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute,
	2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// jitter spreads a wait by ±20 %, so that a receiver that comes back is not met by all that
// failed together.
const jitter = 0.2

// maxRetryAfter bounds how long a receiver can put us off.
const maxRetryAfter = 24 * time.Hour

// judge decides what follows attempt number (1, 2, …) with this result. It is total and pure:
// random, in [0, 1), and the time are the caller's.
func judge(r sender.Result, number int, now time.Time, random float64) verdict {
	switch {
	case r.Status >= 200 && r.Status <= 299:
		return verdict{decision: delivered}
	case r.Status == http.StatusGone:
		return verdict{decision: disabled, reason: reason(r)}
	}
	v := verdict{decision: dead, reason: reason(r)}
	switch r.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		v.overloaded, v.putOff = true, retryAfter(r.RetryAfter, now)
	}
	if number <= len(schedule) {
		wait := schedule[max(number, 1)-1]
		wait += time.Duration(float64(wait) * jitter * (2*random - 1))
		v.decision, v.retryAt = retry, now.Add(max(wait, v.putOff))
	}
	return v
}

// retryAfter reads the header of that name: whole seconds or a date. What is in the past or
// means nothing is no wait.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header != "" && strings.Trim(header, "0123456789") == "" {
		seconds, err := strconv.ParseInt(header, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) { // more digits than any number has are still a wait
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

func reason(r sender.Result) string {
	if r.Status == 0 {
		if r.Failure == nil {
			return "no answer came"
		}
		return r.Failure.Text
	}
	text := "the receiver answered " + strconv.Itoa(r.Status)
	if name := http.StatusText(r.Status); name != "" {
		text += " " + name
	}
	if r.Status >= 300 && r.Status <= 399 {
		text += "; redirects are not followed"
	}
	return text
}
