package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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

// dimensions are those of the Stats API that an event knows, but for properties.
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
}

// absent is what the dashboard calls a property that an event does not have.
const absent = "(none)"

// compiled is a list of filters as SQL. Filters that differ only in their values have the same
// text: a statement grows with the shapes of filters, not with their number. The text reads columns
// of e, an event, and of w.vals, the values.
type compiled struct {
	shape      string // empty: everything passes
	vals       [][]string
	columns    []string        // of the scan, as "expression AS name"
	ofEvents   bool            // looks at what a visit does not know
	unknown    []string        // columns that this Plausible does not have
	dimensions []string        // of them
	patterns   []string        // regular expressions
	everybody  trigger.Filters // whom a conversion rate is of
}

// compileFilters keeps what it made: filters change seldom and are asked about in every slot.
type compileFilters struct {
	mu         sync.Mutex
	done       map[trigger.Filters]*compiled
	understood map[string]bool // regular expressions that ClickHouse was asked about
}

// compiledFilters bounds the memory of filters that no trigger has any more.
const compiledFilters = 50_000

var noFilters compiled

func (e *Events) compile(f trigger.Filters) *compiled {
	if f.Empty() {
		return &noFilters
	}
	e.filters.mu.Lock()
	defer e.filters.mu.Unlock()
	if c, done := e.filters.done[f]; done {
		return c
	}
	c := &compiled{everybody: f.WithoutProperties()}
	c.shape = c.all(f.List(), " AND ")
	for _, name := range f.Dimensions() {
		d, column := dimensions[name], "meta.key"
		if d.column != "" {
			column = d.column
		}
		if !e.has("events_v2", column) || strings.HasPrefix(name, "visit:") && e.sessions && !e.has("sessions_v2", column) {
			c.unknown, c.dimensions = append(c.unknown, column), append(c.dimensions, name)
		}
	}
	if e.filters.done == nil || len(e.filters.done) >= compiledFilters {
		e.filters.done = map[trigger.Filters]*compiled{}
	}
	e.filters.done[f] = c
	return c
}

// longestShape is how long the SQL of filters can be, some 100 comparisons: a statement has the
// shapes of all triggers, and ClickHouse refuses one of over 256 KiB.
const longestShape = 8 << 10

// Unavailable tells why the filters cannot be answered by this ClickHouse; empty: they can.
func (e *Events) Unavailable(f trigger.Filters) string {
	c := e.compile(f)
	switch {
	case len(c.unknown) > 0:
		return fmt.Sprintf("this release of Plausible has no column %s, which the filter of %s needs", strings.Join(c.unknown, ", "), strings.Join(c.dimensions, ", "))
	case len(c.shape) > longestShape:
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
		if c := e.filters.done[q.Filters]; c != nil {
			patterns = append(patterns, c.patterns...)
		}
	}
	patterns = slices.DeleteFunc(patterns, func(p string) bool { _, asked := e.filters.understood[p]; return asked })
	e.filters.mu.Unlock()
	slices.Sort(patterns)
	for _, pattern := range slices.Compact(patterns) {
		table, failed := externalTable("patterns", 1, []column{{"pattern", "String", func(int) any { return pattern }}})
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

// Lacks tells why a question has no answer here; empty: it has.
func (e *Events) Lacks(q trigger.Question) string {
	ofSessions := q.Ask == trigger.AskNumber && q.Metric.OfSessions() || ofRanking(q.Ask) && q.By == trigger.ByEntryPage
	switch c := e.compile(q.Filters); {
	case ofSessions && !e.sessions:
		return "the user of PLAUSIBLE_CLICKHOUSE_URL may not read sessions_v2, which knows visits"
	case ofSessions && c.ofEvents:
		return "visits cannot be filtered by what only events have"
	default:
		return e.Unavailable(q.Filters)
	}
}

func (c *compiled) all(list []trigger.Filter, word string) string {
	parts := make([]string, len(list))
	for i, f := range list {
		var part string
		if len(f.Of) > 0 {
			inner := " AND "
			if f.Any {
				inner = " OR "
			}
			part = c.all(f.Of, inner)
		} else {
			part = c.comparison(f)
		}
		if f.Not {
			part = "NOT " + part
		}
		parts[i] = part
	}
	return "(" + strings.Join(parts, word) + ")"
}

// hold makes room for values and names it. A property's name is a value too, so that the text does
// not depend on it.
func (c *compiled) hold(values ...string) string {
	c.vals = append(c.vals, values)
	return fmt.Sprintf("w.vals[%d]", len(c.vals))
}

// read adds a column to those that the scan must read, and names it.
func (c *compiled) read(name, expression string) string {
	if column := expression + " AS " + name; !slices.Contains(c.columns, column) {
		c.columns = append(c.columns, column)
	}
	return "e." + name
}

func (c *compiled) comparison(f trigger.Filter) string {
	operator, values := f.Operator, slices.Clone(f.Values)
	var x, present string
	if name, isProperty := strings.CutPrefix(f.Dimension, "event:props:"); isProperty {
		keys, texts, held := c.read("prop_keys", "meta.key"), c.read("prop_values", "meta.value"), c.hold(name)+"[1]"
		present = fmt.Sprintf("has(%s, %s)", keys, held)
		x = fmt.Sprintf("%s[indexOf(%s, %s)]", texts, keys, held)
		if operator == "is" {
			x = fmt.Sprintf("if(%s, %s, '%s')", present, x, absent)
		}
		c.ofEvents = true
	} else {
		d := dimensions[f.Dimension]
		x = c.read("d_"+d.column, d.value)
		c.ofEvents = c.ofEvents || strings.HasPrefix(f.Dimension, "event:")
		if operator == "is" && d.empty != "" && slices.ContainsFunc(values, func(v string) bool { return v == d.empty || !f.CaseSensitive && strings.EqualFold(v, d.empty) }) {
			values = append(values, "")
		}
	}
	if operator == "matches_wildcard" {
		operator = "matches"
		for i, v := range values {
			values[i] = pathPattern(v)
		}
	}
	if !f.CaseSensitive {
		for i, v := range values {
			if operator == "matches" {
				values[i] = "(?i)" + v
			} else {
				values[i] = strings.ToLower(v)
			}
		}
		if operator != "matches" {
			x = "lowerUTF8(" + x + ")"
		}
	}
	if operator == "matches" {
		c.patterns = append(c.patterns, values...)
	}
	held := c.hold(values...)
	switch operator {
	case "contains":
		x = fmt.Sprintf("arrayExists(v -> position(%s, v) > 0, %s)", x, held)
	case "matches":
		x = fmt.Sprintf("arrayExists(v -> match(%s, v), %s)", x, held)
	default:
		return fmt.Sprintf("has(%s, %s)", held, x)
	}
	if present != "" {
		return fmt.Sprintf("(%s AND %s)", present, x)
	}
	return x
}

// How a path is matched.
const (
	anyPath = iota
	exactPath
	prefixPath
	patternPath
)

// pathCondition translates a goal's page path. A path with * becomes Plausible's anchored
// pattern, in which | stays an alternative; the usual "…*" at the end needs no pattern.
func pathCondition(path string) (kind uint8, text string) {
	switch {
	case path == "":
		return anyPath, ""
	case !strings.Contains(path, "*"):
		return exactPath, path
	case !strings.Contains(path, "|") && strings.Index(path, "*") == len(strings.TrimRight(path, "*")):
		return prefixPath, strings.TrimRight(path, "*")
	}
	return patternPath, pathPattern(path)
}

func pathPattern(path string) string {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(path), `\|`, `|`)
	pattern = strings.ReplaceAll(pattern, `\*\*`, `.*`)
	return "^" + strings.ReplaceAll(pattern, `\*`, `.*`) + "$"
}

// filterSet is the distinct filters of one query. Its first is the empty one.
type filterSet struct {
	nos    map[trigger.Filters]uint32
	list   []*compiled
	shapes []string
}

func (s *filterSet) add(e *Events, f trigger.Filters) uint32 {
	if len(s.list) == 0 {
		s.nos, s.list, s.shapes = map[trigger.Filters]uint32{{}: 0}, []*compiled{{vals: [][]string{}}}, []string{""}
	}
	no, known := s.nos[f]
	if !known {
		c := e.compile(f)
		no = uint32(len(s.list))
		s.nos[f], s.list = no, append(s.list, c)
		if !slices.Contains(s.shapes, c.shape) {
			s.shapes = append(s.shapes, c.shape)
		}
	}
	return no
}

// any tells whether there is a filter at all.
func (s *filterSet) any() bool { return len(s.list) > 1 }

// columns are those that the filters read of the scanned table.
func (s *filterSet) columns() []string {
	var all []string
	for _, c := range s.list {
		for _, column := range c.columns {
			if !slices.Contains(all, column) {
				all = append(all, column)
			}
		}
	}
	return all
}

// condition picks each row's expression by its shape.
func (s *filterSet) condition() string {
	var b strings.Builder
	for no, shape := range s.shapes[1:] {
		fmt.Fprintf(&b, "w.shape = %d, %s, ", no+1, shape)
	}
	return "multiIf(" + b.String() + "1)"
}

// held is the filters as columns of windows, whose filter filterOf tells.
func (s *filterSet) held(filterOf func(no int) uint32) []column {
	shapeNos := make([]uint16, len(s.list))
	for no, c := range s.list {
		shapeNos[no] = uint16(slices.Index(s.shapes, c.shape))
	}
	return []column{
		{"shape", "UInt16", func(no int) any { return shapeNos[filterOf(no)] }},
		{"vals", "Array(Array(String))", func(no int) any { return s.list[filterOf(no)].vals }},
	}
}
