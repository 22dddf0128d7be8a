package plausible

import (
	"fmt"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
)

// tail ends a query with the rows beyond the page's position, and one more than its limit, which
// tells whether the list goes on. The column is unique in the list.
func tail[P any](p database.Page[P], column string, descending bool, arguments []any) (string, []any) {
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
