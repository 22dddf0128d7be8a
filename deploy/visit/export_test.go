package visit

// Live is how many visits are remembered.
func (t *Tracker) Live() int { return len(t.live) }
