package trigger

import (
	"math"
	"time"
)

// Norm is what a metric usually is, over windows of one length, at each hour of the site's week.
type Norm struct {
	Hours [HoursOfWeek]Usual // from Monday 00:00 in the site's time zone
	Days  int                // of history that it rests on
}

// HoursOfWeek is how many hours a week has.
const HoursOfWeek = 7 * 24

// Usual is the distribution of a metric at one hour of the week and its two neighbours.
type Usual struct {
	Samples  int32 // windows observed
	Mean     float32
	Variance float32
}

// HourOfWeek is 0 for Monday 00:00 to 00:59 in the zone.
func HourOfWeek(at time.Time, zone *time.Location) int {
	local := at.In(zone)
	return (int(local.Weekday())+6)%7*24 + local.Hour()
}

// fewestSamples is how many windows make a norm: of three weeks, with a window an hour.
const fewestSamples = 9

// usual is what is usual at the time. Without enough weeks of history it is what all hours have in
// common, if there is a day of them; it reports false if nothing can be said.
func (n *Norm) usual(at time.Time, zone *time.Location) (Usual, bool) {
	if n == nil {
		return Usual{}, false
	}
	if u := n.Hours[HourOfWeek(at, zone)]; u.Samples >= fewestSamples && n.Days >= 14 {
		return u, true
	}
	all := n.overall()
	return all, n.Days >= 1 && all.Samples >= 24
}

// overall pools all hours of the week. Each window is in three of them: its own and the neighbours'.
func (n *Norm) overall() Usual {
	var samples, sum, squares float64
	for _, u := range n.Hours {
		k, mean := float64(u.Samples), float64(u.Mean)
		samples += k
		sum += k * mean
		squares += k * (float64(u.Variance) + mean*mean)
	}
	if samples == 0 {
		return Usual{}
	}
	mean := sum / samples
	return Usual{Samples: int32(samples / 3), Mean: float32(mean), Variance: float32(squares/samples - mean*mean)}
}

// spread is the mean and the variance of a count. Counts vary at least as much as Poisson's, and
// where nothing was ever counted a little is assumed.
func (u Usual) spread() (mean, variance float64) {
	mean = max(float64(u.Mean), 0.01)
	return mean, max(float64(u.Variance), mean)
}

// quantile is the count that a negative binomial distribution of this mean and variance exceeds
// as seldom as a normal one exceeds z standard deviations: by Cornish and Fisher's expansion with
// the skewness, which is within 2, or 1 per cent, of the exact one for means from 0.1 up and z from
// 2 to 5.5.
func (u Usual) quantile(z float64) float64 {
	mean, variance := u.spread()
	deviation := math.Sqrt(variance)
	skewness := (2*variance - mean) / (mean * deviation)
	return mean + deviation*(z+skewness*(z*z-1)/6)
}

// logNone is the natural logarithm of the probability that a negative binomial count of this
// mean and variance is 0.
func (u Usual) logNone() float64 {
	mean, variance := u.spread()
	if excess := variance - mean; excess > mean*mean*1e-6 {
		size := mean * mean / excess
		return size * math.Log(size/(size+mean))
	}
	return -mean
}

// logAtMost is the natural logarithm of the probability that such a count is at most so low: the
// sum of the distribution's terms, from the highest down until they vanish.
func (u Usual) logAtMost(count float64) float64 {
	mean, variance := u.spread()
	switch {
	case count <= 0:
		return u.logNone()
	case count >= mean:
		return 0 // nothing low; about a half would be true
	}
	highest := math.Floor(count)
	excess := variance - mean
	poisson := excess <= mean*mean*1e-6
	size := mean * mean / excess
	var first float64 // the logarithm of the highest term
	factorial, _ := math.Lgamma(highest + 1)
	if poisson {
		first = highest*math.Log(mean) - mean - factorial
	} else {
		above, _ := math.Lgamma(highest + size)
		below, _ := math.Lgamma(size)
		first = above - below - factorial + u.logNone() - highest*math.Log1p(size/mean)
	}
	sum, term := 1.0, 1.0
	for k := highest; k > 0 && term > sum*1e-12; k-- {
		if poisson {
			term *= k / mean
		} else {
			term *= k / (size + k - 1) * (1 + size/mean)
		}
		sum += term
	}
	return min(0, first+math.Log(sum))
}
