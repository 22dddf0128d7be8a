package dispatcher

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// TestEveryStatusHasAVerdict lists what every status means, at the first attempt and the last. What no
// standard knows, and 0, which is no answer, are failed attempts as any other.
func TestEveryStatusHasAVerdict(t *testing.T) {
	for code := 0; code <= 999; code++ {
		first, last := retry, dead
		switch {
		case code >= 200 && code <= 299:
			first, last = delivered, delivered
		case code == 410:
			first, last = disabled, disabled
		}
		for number, want := range map[int]decision{1: first, 10: first, 11: last, 12: last, math.MaxInt: last} {
			v := judge(sender.Result{Status: code}, number, noon, 0.5)
			assert.Equal(t, want, v.decision, "status %d, attempt %d", code, number)
			assert.Equal(t, want == retry, !v.retryAt.IsZero(), "status %d, attempt %d", code, number)
			assert.Equal(t, want == delivered, v.reason == "", "status %d, attempt %d", code, number)
			overloaded := code == 429 || code == 502 || code == 503 || code == 504
			assert.Equal(t, overloaded, v.overloaded, "status %d, attempt %d: these slow the webhook down", code, number)
			assert.Zero(t, v.putOff, "status %d, attempt %d: nobody asked for it", code, number)
		}
	}
}

func TestEveryFailureHasAVerdict(t *testing.T) {
	for _, class := range sender.Classes {
		r := sender.Result{Failure: &sender.Failure{Class: class, Text: "why"}}
		assert.Equal(t, retry, judge(r, 1, noon, 0.5).decision, class)
		assert.Equal(t, verdict{decision: dead, reason: "why"}, judge(r, 11, noon, 0.5), class)
		r.Status = 200
		assert.Equal(t, verdict{decision: delivered}, judge(r, 11, noon, 0.5), "%s after the answer: its body changes nothing", class)
	}
	assert.Equal(t, "no answer came", judge(sender.Result{}, 1, noon, 0.5).reason)
}

func TestReasonsSayWhatHappened(t *testing.T) {
	for code, want := range map[int]string{
		500: "the receiver answered 500 Internal Server Error",
		302: "the receiver answered 302 Found; redirects are not followed",
		499: "the receiver answered 499",
	} {
		assert.Equal(t, want, judge(sender.Result{Status: code}, 1, noon, 0.5).reason)
	}
}

// TestSchedule states the waits: 11 attempts.
func TestSchedule(t *testing.T) {
	want := []time.Duration{
		5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour,
		5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
	failed := sender.Result{Status: 500}
	for i, wait := range want {
		assert.Equal(t, noon.Add(wait), judge(failed, i+1, noon, 0.5).retryAt, "after attempt %d", i+1)
		assert.Equal(t, noon.Add(wait*8/10), judge(failed, i+1, noon, 0).retryAt, "after attempt %d", i+1)
	}
	assert.Equal(t, dead, judge(failed, len(want)+1, noon, 0.5).decision)
}

// TestJitterSpreads: waits fill the ±20 % evenly, and grow with the random number.
func TestJitterSpreads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.IntRange(1, len(schedule)).Draw(t, "number")
		random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		wait := judge(sender.Result{Status: 500}, number, noon, random).retryAt.Sub(noon)
		base := schedule[number-1]
		require.InDelta(t, 0.8+0.4*random, float64(wait)/float64(base), 1e-6)
		if number < len(schedule) {
			next := judge(sender.Result{Status: 500}, number+1, noon, random).retryAt.Sub(noon)
			require.Greater(t, next, wait, "the schedule grows")
		}
	})
}

// TestJudgeIsTotal: whatever comes, the verdict is one of four, and a retry lies within the
// schedule's ±20 %, or where the receiver put it, at most a day away.
func TestJudgeIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := sender.Result{Status: rapid.IntRange(-10, 1000).Draw(t, "status"), RetryAfter: rapid.String().Draw(t, "retry after")}
		if rapid.Bool().Draw(t, "seconds") {
			r.RetryAfter = rapid.StringMatching(`[0-9]{0,30}`).Draw(t, "retry after in seconds")
		}
		number := rapid.IntRange(-1, 20).Draw(t, "number")
		v := judge(r, number, noon, rapid.Float64Range(0, 0.999999).Draw(t, "random"))
		switch v.decision {
		case delivered, dead, disabled:
			require.True(t, v.retryAt.IsZero())
		case retry:
			base := schedule[max(number, 1)-1]
			wait := v.retryAt.Sub(noon)
			require.GreaterOrEqual(t, wait, base*8/10)
			if slow := r.Status == 429 || r.Status >= 502 && r.Status <= 504; slow {
				require.LessOrEqual(t, wait, max(base*12/10, 24*time.Hour))
			} else {
				require.LessOrEqual(t, wait, base*12/10)
			}
		default:
			t.Fatalf("decision %q", v.decision)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	const asScheduled = 5 * time.Second
	for _, c := range []struct {
		header string
		status int
		want   time.Duration
	}{
		{"120", 429, 2 * time.Minute},
		{" 120 ", 502, 2 * time.Minute},
		{"120", 503, 2 * time.Minute},
		{"120", 504, 2 * time.Minute},
		{"120", 500, asScheduled}, // only where it means something
		{"120", 301, asScheduled},
		{"1", 429, asScheduled}, // never sooner than the schedule
		{"0", 429, asScheduled},
		{"86401", 429, 24 * time.Hour},
		{"99999999999", 429, 24 * time.Hour},
		{strings.Repeat("9", 400), 429, 24 * time.Hour},
		{"-1", 429, asScheduled},
		{"+5", 429, asScheduled},
		{"1e9", 429, asScheduled},
		{"1.5", 429, asScheduled},
		{"0x10", 429, asScheduled},
		{"soon", 429, asScheduled},
		{"", 429, asScheduled},
		{"12 0", 429, asScheduled},
		{noon.Add(time.Hour).Format(http.TimeFormat), 429, time.Hour},
		{noon.Add(time.Hour).Format(time.RFC850), 429, time.Hour},
		{noon.Add(time.Hour).Format(time.ANSIC), 429, time.Hour},
		{noon.Add(48 * time.Hour).Format(http.TimeFormat), 429, 24 * time.Hour},
		{noon.Add(-time.Hour).Format(http.TimeFormat), 429, asScheduled},
		{"Mon, 01 Jan 0001 00:00:00 GMT", 429, asScheduled},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 429, 24 * time.Hour},
	} {
		v := judge(sender.Result{Status: c.status, RetryAfter: c.header}, 1, noon, 0.5)
		assert.Equal(t, c.want, v.retryAt.Sub(noon), "%d with Retry-After %q", c.status, c.header)
	}
	late := judge(sender.Result{Status: 429, RetryAfter: "5"}, 11, noon, 0.5)
	assert.Equal(t, dead, late.decision, "a receiver cannot ask for more attempts than there are")
	assert.Equal(t, 5*time.Second, late.putOff, "but for a pause of the others")
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"120", "-1", "99999999999", "1e9", "", noon.Format(http.TimeFormat), "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if wait := retryAfter(header, noon); wait < 0 || wait > 24*time.Hour {
			t.Errorf("%q makes a wait of %s", header, wait)
		}
	})
}
