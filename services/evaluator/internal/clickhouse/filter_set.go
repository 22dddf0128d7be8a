package clickhouse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// filterSet is the distinct filters of one query. Its first is the empty one.
type filterSet struct {
	nos     map[trigger.Filters]uint32
	list    []*compiled
	shapeOf []uint16    // the shape of each of them
	shapes  []*compiled // one of each
}

func (s *filterSet) add(e *Events, f trigger.Filters, visits bool) uint32 {
	if len(s.list) == 0 {
		s.nos, s.list, s.shapeOf, s.shapes = map[trigger.Filters]uint32{{}: 0}, []*compiled{&noFilters}, []uint16{0}, []*compiled{&noFilters}
	}
	no, known := s.nos[f]
	if !known {
		c := e.compile(f, visits)
		no = uint32(len(s.list))
		shape := slices.IndexFunc(s.shapes, func(known *compiled) bool { return known.text == c.text })
		if shape < 0 {
			shape = len(s.shapes)
			s.shapes = append(s.shapes, c)
		}
		s.nos[f], s.list, s.shapeOf = no, append(s.list, c), append(s.shapeOf, uint16(shape))
	}
	return no
}

// any tells whether there is a filter at all.
func (s *filterSet) any() bool { return len(s.list) > 1 }

// asks tells whether a filter looks at other rows of the same visit.
func (s *filterSet) asks() bool {
	return slices.ContainsFunc(s.list, func(c *compiled) bool { return len(c.asks) > 0 })
}

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
	return s.pick(func(c *compiled) string { return c.condition }, "1")
}

// pick is what the shape of each window has; otherwise, where it has nothing.
func (s *filterSet) pick(of func(*compiled) string, otherwise string) string {
	var b strings.Builder
	for no, shape := range s.shapes {
		if expression := of(shape); expression != "" {
			fmt.Fprintf(&b, "w.shape = %d, %s, ", no, expression)
		}
	}
	if b.Len() == 0 {
		return otherwise
	}
	return "multiIf(" + b.String() + otherwise + ")"
}

// held is the filters as columns of windows, whose filter filterOf tells.
func (s *filterSet) held(filterOf func(no int) uint32) []column {
	return []column{
		columnOf("shape", "UInt16", func(no int) uint16 { return s.shapeOf[filterOf(no)] }),
		columnOf("vals", "String", func(no int) string { return s.list[filterOf(no)].vals }),
	}
}
