package plausible

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Notification is an e-mail that Plausible itself sends about a site's traffic.
type Notification struct {
	Type       string // spike: as many current visitors as Threshold, or more; drop: fewer in 12 hours
	Threshold  int
	Recipients int // how many addresses; nobody is told which
}

// Notifications reads the traffic e-mails that are switched on for a site: at most one of each
// type, none where the release has no such table. Releases before v2.1.2 know spikes only. A
// role that may not read them gets a NoGrantError, and can read them once the right is given.
func (d *Directory) Notifications(ctx context.Context, siteID int64) ([]Notification, error) {
	if !d.features.notifications {
		return nil, nil
	}
	kind, columns := "'spike'", []string{"site_id", "threshold", "recipients"}
	if d.features.dropNotifications {
		kind, columns = "coalesce(type, 'spike')", append(columns, "type")
	}
	var notifications []Notification
	rows, err := d.pool.Query(ctx, "SELECT "+kind+", threshold, cardinality(recipients) FROM spike_notifications WHERE site_id = $1 ORDER BY 1", siteID)
	if err == nil {
		notifications, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Notification])
	}
	if refused := new(pgconn.PgError); errors.As(err, &refused) && refused.Code == insufficientPrivilege {
		return nil, &NoGrantError{Grant: grant(d.role, "spike_notifications", columns)}
	}
	if err != nil {
		return nil, fmt.Errorf("read notifications: %w", err)
	}
	return notifications, nil
}

// insufficientPrivilege is Postgres' code for a table or column that the role may not read.
const insufficientPrivilege = "42501"
