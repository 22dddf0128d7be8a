package trigger

import "math"

// sensitivity is how unusual a number must be for its hour of the week. The levels are named for
// how readily they fire.
type sensitivity string

const (
	sensitivityOff    sensitivity = ""
	sensitivityLow    sensitivity = "low"
	sensitivityMedium sensitivity = "medium"
	sensitivityHigh   sensitivity = "high"
)

// deviations is how many standard deviations above the usual a high number must lie. A month is
// looked at 259,200 times: medium leaves less than one false firing, high two or three a day on the
// sites where chance does most, and finds a spike a minute sooner. TestNullTraffic and
// TestSpikesAreFound measure both.
func (s sensitivity) deviations() float64 {
	return map[sensitivity]float64{sensitivityLow: 5.5, sensitivityMedium: 4.25, sensitivityHigh: 2.75}[s]
}

// excess is the least ratio to the usual mean: of big numbers a small part is already unusual.
func (s sensitivity) excess() float64 {
	return map[sensitivity]float64{sensitivityLow: 2.5, sensitivityMedium: 1.75, sensitivityHigh: 1.4}[s]
}

// logProbability is the natural logarithm of how improbable a low number or a silence must be.
func (s sensitivity) logProbability() float64 {
	return math.Log(map[sensitivity]float64{sensitivityLow: 1e-12, sensitivityMedium: 1e-9, sensitivityHigh: 1e-6}[s])
}

// sensitivity declares the field. With a threshold of the owner's own it is off unless given.
func (f *fields) sensitivity(about string, mayBeOff bool) sensitivity {
	allowed := []string{string(sensitivityMedium), string(sensitivityLow), string(sensitivityHigh)}
	if mayBeOff {
		allowed = append(allowed, "off")
	}
	chosen := f.choice("sensitivity", about, allowed...)
	if chosen == "off" || mayBeOff && f.given("threshold") && !f.given("sensitivity") {
		return sensitivityOff
	}
	return sensitivity(chosen)
}

// comparable refuses a window that a norm cannot be made of: norms are kept by the hour.
func (f *fields) comparable(windowSeconds int64) {
	const hour = 60 * 60
	if windowSeconds > 0 && hour%windowSeconds != 0 && windowSeconds%hour != 0 {
		f.refuse("window_seconds", "must divide an hour, or be whole hours, to be compared with the hours of the week")
	}
}
