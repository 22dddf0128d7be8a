package visit

import (
	"context"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// FlushInterval is how often Plausible writes what it has collected.
const FlushInterval = 5 * time.Second

// Insert writes rows as Plausible does: the events in one batch, the sessions in another.
func Insert(ctx context.Context, conn driver.Conn, rows Rows) error {
	// A start's ten days are 270,000 rows, for which a busy machine has taken over 30 s.
	patience := 30*time.Second + time.Duration(len(rows.Events)+len(rows.Sessions))*time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := plausible.InsertEvents(ctx, conn, rows.Events); err != nil {
		return err
	}
	return plausible.InsertSessions(ctx, conn, rows.Sessions)
}
