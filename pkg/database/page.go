package database

import "slices"

// Page asks for a part of a list by the position of the row that it begins beside. At most one
// of After and Before is set: After goes on in the list's order, Before back.
type Page[P any] struct {
	Limit         int // at least 1
	After, Before *P
}

// Around tells where the pages next to the one read begin; nil: there is none.
type Around[P any] struct{ After, Before *P }

// Cut makes the page of the rows beyond its position, of which one more than its limit was read: that
// tells whether the list goes on. Those of a page that goes back come in the opposite order.
func Cut[T, P any](p Page[P], rows []T, position func(T) P) ([]T, Around[P]) {
	more := len(rows) > p.Limit
	rows = rows[:min(len(rows), p.Limit)]
	if p.Before != nil {
		slices.Reverse(rows)
	}
	if len(rows) == 0 {
		return rows, Around[P]{}
	}
	first, last := position(rows[0]), position(rows[len(rows)-1])
	var around Around[P]
	if more || p.Before != nil { // going back, the rows that it started from are there
		around.After = &last
	}
	if more && p.Before != nil || p.After != nil {
		around.Before = &first
	}
	return rows, around
}
