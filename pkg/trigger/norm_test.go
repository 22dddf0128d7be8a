package trigger

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// negativeBinomial are the probabilities of 0, 1, 2 and so on, until only a negligible rest is left.
func negativeBinomial(mean, variance float64) []float64 {
	var exact []float64
	for k, sum := 0, 0.0; float64(k) < mean || sum < 1-1e-13 && k < 1_000_000; k++ {
		n := float64(k)
		factorial, _ := math.Lgamma(n + 1)
		p := math.Exp(n*math.Log(mean) - mean - factorial)
		if variance > mean*(1+1e-9) {
			size := mean * mean / (variance - mean)
			above, _ := math.Lgamma(n + size)
			below, _ := math.Lgamma(size)
			p = math.Exp(above - below - factorial + size*math.Log(size/(size+mean)) + n*math.Log(mean/(size+mean)))
		}
		exact = append(exact, p)
		sum += p
	}
	return exact
}

var spreads = []struct{ mean, variance float64 }{
	{0.1, 0.1}, {0.1, 0.15}, {1, 1}, {1, 1.5}, {3, 3}, {3, 6}, {10, 10}, {10, 20}, {28, 36}, {100, 100}, {100, 400}, {300, 1500},
}

func TestLowCountsHaveTheirExactProbability(t *testing.T) {
	for _, s := range append(spreads, struct{ mean, variance float64 }{20, 2000}) {
		u := Usual{Mean: float32(s.mean), Variance: float32(s.variance)}
		mean, variance := u.spread() // as far as float32 keeps them
		exact := negativeBinomial(mean, variance)
		require.InEpsilon(t, math.Log(exact[0]), u.logNone(), 1e-6, "%v", s)
		sum := 0.0
		for k := 0; float64(k) < mean; k++ {
			sum += exact[k]
			require.InDelta(t, math.Log(sum), u.logAtMost(float64(k)), 1e-5, "%v: at most %d", s, k)
		}
		require.Zero(t, u.logAtMost(mean))
	}
	rapid.Check(t, func(t *rapid.T) {
		u := Usual{Mean: rapid.Float32Range(0, 1e5).Draw(t, "mean"), Variance: rapid.Float32Range(0, 1e9).Draw(t, "variance")}
		low := rapid.Float64Range(0, 1e5).Draw(t, "count")
		p := u.logAtMost(low)
		require.LessOrEqual(t, p, 0.0)
		require.False(t, math.IsNaN(p))
		require.LessOrEqual(t, u.logAtMost(math.Floor(low/2)), p+1e-9, "fewer are less probable")
	})
}

// exceeding is the count that is exceeded with at most that probability.
func exceeding(exact []float64, probability float64) float64 {
	sum := 0.0
	for k := len(exact) - 1; k >= 0; k-- {
		if sum += exact[k]; sum > probability {
			return float64(k)
		}
	}
	return 0
}

func TestQuantilesAreNearTheExactOnes(t *testing.T) {
	for _, s := range spreads {
		u := Usual{Mean: float32(s.mean), Variance: float32(s.variance)}
		for _, z := range []float64{2, 3, 4.25, 5.5} {
			want := exceeding(negativeBinomial(u.spread()), math.Erfc(z/math.Sqrt2)/2)
			require.InDelta(t, want, u.quantile(z), max(2, want/100), "mean %v, variance %v, %v deviations", s.mean, s.variance, z)
		}
	}
}

func TestHoursOfTheWeekAreThoseOfTheClockOnTheWall(t *testing.T) {
	zone := tallinn(t)
	for _, week := range []string{"2026-03-23", "2026-03-30", "2026-06-01", "2026-10-19", "2026-10-26"} {
		monday, err := time.ParseInLocation(time.DateOnly, week, zone)
		require.NoError(t, err)
		seen := map[int]int{}
		for at := monday; at.Before(monday.AddDate(0, 0, 7)); at = at.Add(time.Hour) {
			local := at.In(zone)
			h := HourOfWeek(at.UTC(), zone)
			require.Equal(t, (int(local.Weekday())+6)%7, h/24)
			require.Equal(t, local.Hour(), h%24)
			seen[h]++
		}
		const threeOnSunday = 6*24 + 3
		switch week {
		case "2026-03-23":
			require.Zero(t, seen[threeOnSunday], "the hour that the clocks leave out")
			require.Len(t, seen, HoursOfWeek-1)
		case "2026-10-19":
			require.Equal(t, 2, seen[threeOnSunday], "the hour that comes twice")
			require.Len(t, seen, HoursOfWeek)
		default:
			require.Len(t, seen, HoursOfWeek)
		}
	}
	require.Equal(t, 0, HourOfWeek(time.Date(2026, 11, 23, 0, 59, 59, 0, time.UTC), time.UTC))
	require.Equal(t, HoursOfWeek-1, HourOfWeek(time.Date(2026, 11, 22, 23, 0, 0, 0, time.UTC), time.UTC))
}

func TestWhatIsUsualNeedsEnoughHistory(t *testing.T) {
	var none *Norm
	_, known := none.usual(origin, time.UTC)
	require.False(t, known)
	n := flatNorm(10, 10)
	n.Hours[HourOfWeek(origin, time.UTC)] = Usual{Samples: fewestSamples, Mean: 50, Variance: 60}
	for days, want := range map[int]float32{14: 50, 13: n.overall().Mean, 1: n.overall().Mean} {
		n.Days = days
		u, known := n.usual(origin, time.UTC)
		require.True(t, known)
		require.Equal(t, want, u.Mean, "%d days", days)
	}
	n.Days = 0
	_, known = n.usual(origin, time.UTC)
	require.False(t, known)
	require.Zero(t, (&Norm{}).overall())

	// Pooled, hours that differ vary more. Each window is in three hours.
	for h := range n.Hours {
		n.Hours[h] = Usual{Samples: 3, Mean: float32(10 + 10*(h%2)), Variance: 5}
	}
	require.Equal(t, Usual{Samples: HoursOfWeek, Mean: 15, Variance: 30}, n.overall())
}
