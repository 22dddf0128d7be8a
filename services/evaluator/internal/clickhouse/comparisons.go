package clickhouse

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// compiler writes conditions on one kind of rows e.
type compiler struct {
	*compiled
	events  *Events
	columns *[]string // that these rows need
	visits  bool      // they are states of visits, not events
}

func (c *compiler) all(list []trigger.Filter, word string) string {
	parts := make([]string, len(list))
	for i, f := range list {
		var part string
		switch {
		case f.Done:
			part = c.done(f.Of, false)
		case trigger.OfVisitAlone(f.Dimension) && !c.visits:
			part = c.ask(ofVisit{}, func(of *compiler) string { return of.comparison(f) })
		case len(f.Of) > 0:
			inner := " AND "
			if f.Any {
				inner = " OR "
			}
			part = c.all(f.Of, inner)
		default:
			part = c.comparison(f)
		}
		if f.Not {
			part = "NOT " + part
		}
		parts[i] = part
	}
	return "(" + strings.Join(parts, word) + ")"
}

// ofVisits writes the condition on a visit: it must meet what is about the visit, and have an event in the
// window that meets all the rest. The bounce rate of a page is that of the visits which entered there.
func (c *compiler) ofVisits(list []trigger.Filter) {
	var own, rest []trigger.Filter
	for _, f := range list {
		ofEvent, ofVisit := f.Sides()
		c.tangled = c.tangled || ofEvent != "" && ofVisit != ""
		if ofEvent == "" {
			own = append(own, f)
			continue
		}
		rest = append(rest, f)
		if f.Dimension == "event:page" && c.enters == "" {
			f.Dimension = "visit:entry_page"
			c.enters = c.all([]trigger.Filter{f}, "")
		}
	}
	var parts []string
	if len(own) > 0 {
		parts = append(parts, c.all(own, " AND "))
	}
	if len(rest) > 0 && !c.tangled {
		parts = append(parts, c.done(rest, true))
	}
	c.condition = "(" + strings.Join(parts, " AND ") + ")"
}

// done is that the row's visit has an event which meets all filters. How far somebody read is no event, but
// where it is looked for.
func (c *compiler) done(all []trigger.Filter, inWindow bool) string {
	return c.ask(ofVisit{events: true, inWindow: inWindow}, func(of *compiler) string {
		condition := of.all(all, " AND ")
		if !looksAtScrolling(all) {
			condition = fmt.Sprintf("(%s AND NOT %s)", condition, of.read("engaged", "name = 'engagement'"))
		}
		return condition
	})
}

func looksAtScrolling(list []trigger.Filter) bool {
	return slices.ContainsFunc(list, func(f trigger.Filter) bool { return f.Dimension == trigger.ScrollDepth || looksAtScrolling(f.Of) })
}

// ask has another row of the visit looked at. What it must be is written by "write".
func (c *compiler) ask(a ofVisit, write func(of *compiler) string) string {
	a.condition = write(&compiler{compiled: c.compiled, events: c.events, columns: &a.columns, visits: !a.events})
	c.asks = append(c.asks, a)
	return fmt.Sprintf("has(v.asks, %d)", len(c.asks))
}

// hold makes room for values and names it. A property's name is a value too, so that the text does
// not depend on it.
func (c *compiler) hold(values ...string) string {
	if c.lists > 0 {
		c.vals += listSeparator
	}
	c.lists++
	c.vals += packedList(values)
	return listAt("w.vals", c.lists)
}

// read adds a column to those that the scan must read, and names it.
func (c *compiler) read(name, expression string) string {
	if column := expression + " AS " + name; !slices.Contains(*c.columns, column) {
		*c.columns = append(*c.columns, column)
	}
	return "e." + name
}

func (c *compiler) comparison(f trigger.Filter) string {
	if f.Dimension == trigger.ScrollDepth {
		depth := c.read("scrolled", c.events.scrollDepth())
		return fmt.Sprintf("(%[1]s <= 100 AND %[1]s >= toUInt8OrZero(%[2]s[1]))", depth, c.hold(f.Values...))
	}
	operator, values := f.Operator, slices.Clone(f.Values)
	var x, present string
	if name, isProperty := strings.CutPrefix(f.Dimension, "event:props:"); isProperty {
		keys, texts, held := c.read("prop_keys", "meta.key"), c.read("prop_values", "meta.value"), c.hold(name)+"[1]"
		present = fmt.Sprintf("has(%s, %s)", keys, held)
		x = fmt.Sprintf("%s[indexOf(%s, %s)]", texts, keys, held)
		if operator == "is" {
			x = fmt.Sprintf("if(%s, %s, '%s')", present, x, absent)
		}
	} else {
		d := dimensions[f.Dimension]
		x = c.read("d_"+d.column, d.value)
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
