package evaluator

import (
	"log/slog"
	"sync"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

// zones are the time zones that were needed, by their names: each is read from the disk once.
var zones sync.Map

// zoneOf is the site's time zone. Plausible offers only names of the IANA's list; one that is not known
// here stops nothing, it is taken for UTC.
func zoneOf(site plausible.Site, log *slog.Logger) *time.Location {
	if zone, known := zones.Load(site.Timezone); known {
		return zone.(*time.Location)
	}
	zone, err := time.LoadLocation(site.Timezone)
	if err != nil {
		log.Error("a site's time zone is not known here, UTC is taken", "site_id", site.ID, "zone", site.Timezone)
		zone = time.UTC
	}
	zones.Store(site.Timezone, zone)
	return zone
}
