package postgres

import (
	"slices"
	"time"
)

// Position is where a row stands in a list: lists are ordered by a time and, within it, by id.
type Position struct {
	At time.Time
	ID string
}

// Page asks for a part of a list, newest first. At most one of After and Before is set: After
// goes on to older rows, Before back to newer ones.
type Page struct {
	Limit         int
	After, Before *Position
}

// Around tells where the pages next to the one read begin; nil: there is none.
type Around struct{ After, Before *Position }

// endOfTime is later than every row: the start of the first page.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// arguments are those of tail.
func (p Page) arguments() (time.Time, string, int) {
	from := Position{At: endOfTime}
	switch {
	case p.After != nil:
		from = *p.After
	case p.Before != nil:
		from = *p.Before
	}
	return from.At, from.ID, p.Limit + 1 // one more tells whether the list goes on
}

// tail is the end of a list's query: the rows beyond the position in ($2, $3), at most $4.
// The columns are those of an index.
func (p Page) tail(at, id string) string {
	if p.Before != nil {
		return " AND (" + at + ", " + id + ") > ($2, $3) ORDER BY " + at + ", " + id + " LIMIT $4"
	}
	return " AND (" + at + ", " + id + ") < ($2, $3) ORDER BY " + at + " DESC, " + id + " DESC LIMIT $4"
}

// cut makes the page of the rows that tail let through.
func cut[T any](p Page, rows []T, position func(T) Position) ([]T, Around) {
	more := len(rows) > p.Limit
	rows = rows[:min(len(rows), p.Limit)]
	if p.Before != nil {
		slices.Reverse(rows)
	}
	if len(rows) == 0 {
		return rows, Around{}
	}
	first, last := position(rows[0]), position(rows[len(rows)-1])
	var around Around
	if more || p.Before != nil { // going back, the rows that it started from are there
		around.After = &last
	}
	if more && p.Before != nil || p.After != nil {
		around.Before = &first
	}
	return rows, around
}
