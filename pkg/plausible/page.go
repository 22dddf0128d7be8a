package plausible

import (
	"fmt"
	"slices"
)

// Page asks for a part of a list by the position of the row that it begins beside. At most one
// of After and Before is set: After goes on in the list's order, Before back.
type Page[P any] struct {
	Limit         int // at least 1
	After, Before *P
}

// Around tells where the pages next to the one read begin; nil: there is none.
type Around[P any] struct{ After, Before *P }

// tail ends a query with the rows beyond the page's position, and one more than its limit, which
// tells whether the list goes on. The column is unique in the list.
func tail[P any](p Page[P], column string, descending bool, arguments []any) (string, []any) {
	from := p.After
	if p.Before != nil {
		from, descending = p.Before, !descending
	}
	beyond, order := ">", ""
	if descending {
		beyond, order = "<", " DESC"
	}
	var condition string
	if from != nil {
		arguments = append(arguments, *from)
		condition = fmt.Sprintf(" AND %s %s $%d", column, beyond, len(arguments))
	}
	arguments = append(arguments, p.Limit+1)
	return fmt.Sprintf("%s ORDER BY %s%s LIMIT $%d", condition, column, order, len(arguments)), arguments
}

// cut makes the page of the rows that tail let through.
func cut[T, P any](p Page[P], rows []T, position func(T) P) ([]T, Around[P]) {
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
