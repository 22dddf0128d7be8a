package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// terminal is what the user sees. Its methods may be called at the same time.
type terminal struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
}

func newTerminal(out *os.File) *terminal {
	return &terminal{out: out, colour: term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// The colours, as ANSI escapes.
const (
	green  = "32"
	red    = "31"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

func (t *terminal) paint(colour, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (t *terminal) line(format string, arguments ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.out, format+"\n", arguments...) // nobody may be reading any more
}

func (t *terminal) failure(err error) {
	t.line("%s %s", t.paint(red, "✘"), strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

func (t *terminal) notice(format string, arguments ...any) {
	t.line("%s %s", t.paint(yellow, "!"), fmt.Sprintf(format, arguments...))
}

// arrival prints one line for a message that the receiver got.
func (t *terminal) arrival(a arrival) {
	verdict := t.paint(green, "✔ verified")
	switch {
	case a.Problem != "":
		verdict = t.paint(red, "✘ refused")
	case !a.Verified:
		verdict = t.paint(yellow, "· received")
	}
	parts := []string{t.paint(dim, a.ReceivedAt.Local().Format(time.TimeOnly)), verdict}
	if a.Path != demoPath {
		parts = append(parts, t.paint(dim, a.Path))
	}
	switch {
	case a.Problem != "":
		parts = append(parts, a.Problem)
	case !a.Verified:
		parts = append(parts, "not verified: no secret known for this path")
	}
	parts = append(parts, t.summary(a.Body)...)
	if a.ID != "" {
		parts = append(parts, t.paint(dim, a.ID))
	}
	t.line("%s", strings.Join(parts, "  "))
}

// summary says what a standard message is about; it is empty for anything else.
func (t *terminal) summary(body json.RawMessage) []string {
	var m trigger.Message
	if json.Unmarshal(body, &m) != nil || m.Type == "" {
		return nil
	}
	parts := []string{t.paint(bold, clean(m.Type))}
	d := m.Data
	if d.Site.Domain != "" {
		parts = append(parts, clean(d.Site.Domain))
	}
	if d.Trigger.Name != "" {
		parts = append(parts, fmt.Sprintf("“%s”", clean(d.Trigger.Name)))
	}
	switch {
	case d.Explanation != "":
		parts = append(parts, strings.TrimSuffix(clean(d.Explanation), "."))
	case d.Trigger.Name != "":
		parts = append(parts, number(d.Value)+"/"+number(d.Threshold))
	}
	if d.Next != nil {
		parts = append(parts, fmt.Sprintf("the next is %d", d.Next.Milestone))
	}
	for i, c := range d.Conversions {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("and %d more", len(d.Conversions)-i))
			break
		}
		parts = append(parts, conversion(c))
	}
	// What is about one value, as a new source, has already said where the visitors come from.
	if len(d.Conversions) == 0 && d.Group == nil && d.Context != nil && len(d.Context.TopSources) > 0 {
		top := d.Context.TopSources[0]
		parts = append(parts, fmt.Sprintf("%d from %s", top.Visitors, clean(top.Name)))
	}
	return parts
}

func conversion(c trigger.Conversion) string {
	where := []string{c.Page}
	for _, part := range []string{c.Source, c.Country} {
		if part != "" {
			where = append(where, part)
		}
	}
	names := make([]string, 0, len(c.Props))
	for name := range c.Props {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		where = append(where, name+"="+c.Props[name])
	}
	return "[" + clean(strings.Join(where, ", ")) + "]"
}

func number(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// clean keeps what strangers wrote, a page's path or a property, from steering the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
