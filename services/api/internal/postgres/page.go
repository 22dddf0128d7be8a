package postgres

import (
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// Position is where a row stands in a list: lists are ordered by a time and, within it, by id.
type Position struct {
	At time.Time
	ID string
}

// Page asks for a part of a list, newest first.
type Page = database.Page[Position]

// Around tells what is next to a page.
type Around = database.Around[Position]

// endOfTime is later than every row: the start of the first page.
var endOfTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// arguments are those of tail.
func arguments(p Page) (time.Time, string, int) {
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
func tail(p Page, at, id string) string {
	if p.Before != nil {
		return " AND (" + at + ", " + id + ") > ($2, $3) ORDER BY " + at + ", " + id + " LIMIT $4"
	}
	return " AND (" + at + ", " + id + ") < ($2, $3) ORDER BY " + at + " DESC, " + id + " DESC LIMIT $4"
}
