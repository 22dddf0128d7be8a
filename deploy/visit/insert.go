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
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := plausible.InsertEvents(ctx, conn, rows.Events); err != nil {
		return err
	}
	return plausible.InsertSessions(ctx, conn, rows.Sessions)
}
