// Package clickhouse asks Plausible's ClickHouse what the triggers want to know. The number of
// queries is constant in the number of triggers: what each trigger asks travels as a row of an
// external table that is joined with the events once.
//
// Every query is read-only, bounded in time, and carries a log_comment that names it in
// ClickHouse's query log.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/patience"
)

// Events reads Plausible's events_v2 and sessions_v2.
type Events struct {
	conn     driver.Conn
	observe  Observe
	settings clickhouse.Settings        // of every query; nil before the user's rights are known
	columns  map[string]map[string]bool // by table: releases differ
	sessions bool                       // sessions_v2 can be read
	filters  compileFilters
}

// Observe is told of every query: its family, how long it took, and its error.
type Observe func(family string, took time.Duration, err error)

// maxConns is enough for a slot, the contexts of the one before and two previews at the same time: none waits for another's
// connection.
const maxConns = 2*atOnce + 4

// Open connects to Plausible's ClickHouse by a URL such as
// http://user:password@host:8123/plausible_events_db, and probes its tables. It refuses a
// database that is not Plausible's.
func Open(ctx context.Context, rawURL string, queryTimeout time.Duration, observe Observe) (*Events, error) {
	options, err := clickhouse.ParseDSN(rawURL)
	if err != nil {
		return nil, errors.New("PLAUSIBLE_CLICKHOUSE_URL is not a URL such as http://user:password@host:8123/plausible_events_db")
	}
	options.DialTimeout = 5 * time.Second
	options.ReadTimeout = queryTimeout + 5*time.Second // the server's own limit speaks first
	options.MaxOpenConns, options.MaxIdleConns = maxConns, maxConns
	conn, err := clickhouse.Open(options)
	if err != nil {
		return nil, fmt.Errorf("open PLAUSIBLE_CLICKHOUSE_URL: %w", err)
	}
	e := &Events{conn: conn, observe: observe}
	if err := e.await(ctx, options); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := e.probe(ctx, options.Auth.Database, queryTimeout); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return e, nil
}

// Close ends the connections.
func (e *Events) Close() error { return e.conn.Close() }

func (e *Events) await(ctx context.Context, options *clickhouse.Options) error {
	err := patience.Await(ctx, func(ctx context.Context) error {
		_, _, err := e.Now(ctx)
		if refusal := new(clickhouse.Exception); errors.As(err, &refusal) { // the server is there; the probe explains the rest
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("ClickHouse of PLAUSIBLE_CLICKHOUSE_URL (%s, database %s) did not answer: %w", options.Addr[0], options.Auth.Database, err)
	}
	return nil
}

func (e *Events) probe(ctx context.Context, database string, queryTimeout time.Duration) error {
	var readonly uint64
	err := e.query(ctx, "probe", nil, "SELECT toUInt64(getSetting('readonly'))", func(rows driver.Rows) error { return rows.Scan(&readonly) })
	if err != nil {
		return fmt.Errorf("probe PLAUSIBLE_CLICKHOUSE_URL: %w", err)
	}
	if e.settings, err = settings(readonly, queryTimeout); err != nil {
		return err
	}
	const columns = "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND table IN ('events_v2', 'sessions_v2')"
	e.columns = map[string]map[string]bool{"events_v2": {}, "sessions_v2": {}}
	err = e.query(ctx, "probe", nil, columns, func(rows driver.Rows) error {
		var table, name string
		err := rows.Scan(&table, &name)
		if err == nil {
			e.columns[table][name] = true
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("probe PLAUSIBLE_CLICKHOUSE_URL: %w", err)
	}
	if !e.has("events_v2", "timestamp", "name", "site_id", "user_id", "session_id", "pathname", "referrer_source", "country_code", "meta.key", "meta.value") {
		return fmt.Errorf("the ClickHouse database %q of PLAUSIBLE_CLICKHOUSE_URL is not Plausible's (v2.0 or later), or its user may not read it: events_v2 is missing or lacks columns", database)
	}
	e.sessions = e.has("sessions_v2", "timestamp", "start", "sign", "site_id", "user_id", "session_id", "is_bounce", "duration", "pageviews", "entry_page", "exit_page")
	return nil
}

func (e *Events) has(table string, columns ...string) bool {
	return !slices.ContainsFunc(columns, func(column string) bool { return !e.columns[table][column] })
}

// Describe tells what this release of Plausible has of what came later than v2.0.
func (e *Events) Describe() string {
	say := func(has bool) string {
		if has {
			return "yes"
		}
		return "no"
	}
	return fmt.Sprintf("scroll_depth: %s, acquisition_channel: %s, sessions_v2: %s",
		say(e.has("events_v2", "scroll_depth")), say(e.has("events_v2", "acquisition_channel")), say(e.sessions))
}

// settings bound every query, by what the user's own readonly setting leaves to the client: ClickHouse
// refuses to have readonly set again where it is 2, and any setting where it is 1.
func settings(readonly uint64, queryTimeout time.Duration) (clickhouse.Settings, error) {
	bounds := clickhouse.Settings{"max_execution_time": int(queryTimeout.Seconds())}
	switch readonly {
	case 0:
		bounds["readonly"] = 1
	case 1:
		return nil, errors.New("the user of PLAUSIBLE_CLICKHOUSE_URL has readonly = 1, which forbids the time limit that each query carries: set it to 2")
	}
	return bounds, nil
}

// Now is the time of ClickHouse's clock, the one that counts: the evaluator's own may differ. With
// it comes the newest event of all sites, which ClickHouse knows without reading a row; zero if there
// is none.
func (e *Events) Now(ctx context.Context) (now, newest time.Time, err error) {
	const statement = "SELECT toUnixTimestamp64Milli(now64(3)), toUnixTimestamp(max(timestamp)) FROM events_v2"
	err = e.query(ctx, "clock", nil, statement, func(rows driver.Rows) error {
		var millis int64
		var last uint32
		err := rows.Scan(&millis, &last)
		now = time.UnixMilli(millis).UTC()
		if last > 0 {
			newest = instant(last)
		}
		return err
	})
	return now, newest, err
}

// query runs one statement with its external tables and calls scan for every row.
func (e *Events) query(ctx context.Context, family string, tables []*ext.Table, statement string, scan func(driver.Rows) error) (err error) {
	started := time.Now()
	defer func() { e.observe(family, time.Since(started), err) }()

	var options []clickhouse.QueryOption
	if e.settings != nil {
		bounds := maps.Clone(e.settings)
		bounds["log_comment"] = "plausible-webhooks/" + family
		options = append(options, clickhouse.WithSettings(bounds))
	}
	if len(tables) > 0 {
		options = append(options, clickhouse.WithExternalTable(tables...))
	}
	rows, err := e.conn.Query(clickhouse.Context(ctx, options...), statement)
	if err != nil {
		return fmt.Errorf("query %s: %w", family, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("query %s: read a row: %w", family, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("query %s: %w", family, err)
	}
	return nil
}
