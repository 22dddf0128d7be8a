package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// dimension is where a filter's dimension is found.
type dimension struct {
	column string // physical: the aliases of later releases are left alone
	value  string // the column as a String
	empty  string // what the dashboard calls an empty value
}

const notSet = "(not set)"

// dimensions are those of the Stats API, but for properties.
var dimensions = map[string]dimension{
	"event:page":     {"pathname", "pathname", ""},
	"event:hostname": {"hostname", "hostname", ""},
	"event:name":     {"name", "CAST(name AS String)", ""},

	"visit:source":          {"referrer_source", "referrer_source", "Direct / None"},
	"visit:channel":         {"acquisition_channel", "CAST(acquisition_channel AS String)", "Direct"},
	"visit:referrer":        {"referrer", "referrer", "Direct / None"},
	"visit:utm_medium":      {"utm_medium", "utm_medium", notSet},
	"visit:utm_source":      {"utm_source", "utm_source", notSet},
	"visit:utm_campaign":    {"utm_campaign", "utm_campaign", notSet},
	"visit:utm_content":     {"utm_content", "utm_content", notSet},
	"visit:utm_term":        {"utm_term", "utm_term", notSet},
	"visit:device":          {"screen_size", "CAST(screen_size AS String)", notSet},
	"visit:browser":         {"browser", "CAST(browser AS String)", notSet},
	"visit:browser_version": {"browser_version", "CAST(browser_version AS String)", notSet},
	"visit:os":              {"operating_system", "CAST(operating_system AS String)", notSet},
	"visit:os_version":      {"operating_system_version", "CAST(operating_system_version AS String)", notSet},
	"visit:country":         {"country_code", "toStringCutToZero(CAST(country_code AS String))", ""}, // unknown is two NUL bytes
	"visit:region":          {"subdivision1_code", "CAST(subdivision1_code AS String)", ""},
	"visit:city":            {"city_geoname_id", "toString(city_geoname_id)", ""},
	"visit:entry_page":      {"entry_page", "entry_page", ""}, // these two are only in sessions_v2
	"visit:exit_page":       {"exit_page", "exit_page", ""},
}

// absent is what the dashboard calls a property that an event does not have.
const absent = "(none)"

// compiled is a list of filters as SQL. Filters that differ only in their values have the same
// text: a statement grows with the shapes of filters, not with their number. The text reads columns
// of e, an event or a state of a visit, and of w.vals, the values.
type compiled struct {
	text       string // all SQL: what filters of the same shape have in common
	condition  string // empty: everything passes
	asks       []ofVisit
	enters     string // on e, a visit: it entered by a page of the filter; empty: any
	vals       string // lists of values
	lists      int
	columns    []string        // of the scan, as "expression AS name"
	tangled    bool            // asks of visits what cannot be said of them
	unknown    []string        // columns that this Plausible does not have
	dimensions []string        // of them
	patterns   []string        // regular expressions
	everybody  trigger.Filters // whom a conversion rate is of

	needsVisits bool // cannot do without sessions_v2
}

// ofVisit is a condition that a row's visit must meet by another row, an event or its own newest state.
type ofVisit struct {
	condition string
	columns   []string
	events    bool
	inWindow  bool // otherwise since the visit began
}

// compileFilters keeps what it made: filters change seldom and are asked about in every slot.
type compileFilters struct {
	mu         sync.Mutex
	done       map[compileOf]*compiled
	understood map[string]bool // regular expressions that ClickHouse was asked about
}

// compileOf is filters on events, or on visits.
type compileOf struct {
	trigger.Filters
	visits bool
}

// compiledFilters bounds the memory of filters that no trigger has any more.
const compiledFilters = 50_000

var noFilters compiled

// compile makes the SQL of filters on events, or on visits.
func (e *Events) compile(f trigger.Filters, visits bool) *compiled {
	if f.Empty() {
		return &noFilters
	}
	e.filters.mu.Lock()
	defer e.filters.mu.Unlock()
	if c, done := e.filters.done[compileOf{f, visits}]; done {
		return c
	}
	c := &compiled{everybody: f.WithoutProperties()}
	compiler := compiler{compiled: c, events: e, columns: &c.columns, visits: visits}
	if visits {
		compiler.ofVisits(f.List())
	} else {
		c.condition = compiler.all(f.List(), " AND ")
	}
	c.text = c.condition + c.enters
	for _, a := range c.asks {
		c.text += fmt.Sprint(" ", a.events, a.inWindow, a.condition)
	}
	for _, name := range f.Dimensions() {
		if column, known := e.columnOf(name); !known {
			c.unknown, c.dimensions = append(c.unknown, column), append(c.dimensions, name)
		}
		c.needsVisits = c.needsVisits || trigger.OfVisitAlone(name)
	}
	if e.filters.done == nil || len(e.filters.done) >= compiledFilters {
		e.filters.done = map[compileOf]*compiled{}
	}
	e.filters.done[compileOf{f, visits}] = c
	return c
}

// columnOf is where a dimension is found, and whether this Plausible has it.
func (e *Events) columnOf(dimension string) (column string, known bool) {
	column = "meta.key" // of properties and how far was read
	if d := dimensions[dimension]; d.column != "" {
		column = d.column
	}
	ofVisits := e.sessions && strings.HasPrefix(dimension, "visit:")
	return column, (trigger.OfVisitAlone(dimension) || e.has("events_v2", column)) && (!ofVisits || e.has("sessions_v2", column))
}

// longestShape is how long the SQL of filters can be, some 100 comparisons: a statement has the
// shapes of all triggers, and ClickHouse refuses one of over 256 KiB.
const longestShape = 8 << 10

// Unavailable tells why the filters cannot be answered by this ClickHouse; empty: they can.
func (e *Events) Unavailable(f trigger.Filters) string {
	c := e.compile(f, false)
	switch {
	case c.needsVisits && !e.sessions:
		return noVisits
	case len(c.unknown) > 0:
		return fmt.Sprintf("this release of Plausible has no column %s, which the filter of %s needs", strings.Join(c.unknown, ", "), strings.Join(c.dimensions, ", "))
	case len(c.text) > longestShape:
		return "the filters have more comparisons than fit into a query for all triggers"
	case len(c.patterns) == 0:
		return ""
	}
	e.filters.mu.Lock()
	defer e.filters.mu.Unlock()
	for _, pattern := range c.patterns {
		if understood, asked := e.filters.understood[pattern]; asked && !understood {
			return fmt.Sprintf("ClickHouse does not understand the regular expression %q", pattern)
		}
	}
	return ""
}

// cannotCompile is ClickHouse's code for a regular expression that it does not understand.
const cannotCompile = 427

// withoutBroken asks, and if ClickHouse does not understand a regular expression, finds out which one
// it is and asks again without the questions that are then Unavailable: what one trigger looks for must
// not keep all others from their answers. What pkg/trigger accepts is Go's syntax, nearly the same.
func (e *Events) withoutBroken(ctx context.Context, questions []Question, ask func() error) error {
	err := ask()
	if refusal := new(clickhouse.Exception); !errors.As(err, &refusal) || refusal.Code != cannotCompile {
		return err
	}
	e.filters.mu.Lock()
	if e.filters.understood == nil || len(e.filters.understood) >= compiledFilters {
		e.filters.understood = map[string]bool{}
	}
	var patterns []string
	for _, q := range questions {
		for _, visits := range []bool{false, true} {
			if c := e.filters.done[compileOf{q.Filters, visits}]; c != nil {
				patterns = append(patterns, c.patterns...)
			}
		}
	}
	patterns = slices.DeleteFunc(patterns, func(p string) bool { _, asked := e.filters.understood[p]; return asked })
	e.filters.mu.Unlock()
	slices.Sort(patterns)
	for _, pattern := range slices.Compact(patterns) {
		table, failed := externalTable("patterns", 1, []column{columnOf("pattern", "String", func(int) string { return pattern })})
		if failed != nil {
			return failed
		}
		failed = e.query(ctx, "pattern", []*ext.Table{table}, "SELECT match(pattern, pattern) FROM patterns", func(driver.Rows) error { return nil })
		refusal := new(clickhouse.Exception)
		if failed != nil && (!errors.As(failed, &refusal) || refusal.Code != cannotCompile) {
			return failed
		}
		e.filters.mu.Lock()
		e.filters.understood[pattern] = failed == nil
		e.filters.mu.Unlock()
	}
	return ask()
}

const noVisits = "the user of PLAUSIBLE_CLICKHOUSE_URL may not read sessions_v2, which knows visits"

// Lacks tells why a question has no answer here; empty: it has.
func (e *Events) Lacks(q trigger.Question) string {
	if q.Ask == trigger.AskNumber && q.Metric.OfSessions() || ofRanking(q.Ask) && q.By == trigger.ByEntryPage {
		switch {
		case !e.sessions:
			return noVisits
		case e.compile(q.Filters, true).tangled:
			return "one filter cannot ask of a visit both for an event and for the visit itself"
		}
	}
	return e.Unavailable(q.Filters)
}
