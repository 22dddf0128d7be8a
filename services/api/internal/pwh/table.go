package pwh

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// lineWidth is what tables have room for.
const lineWidth = 100

// output keeps its first error, after which nothing more is written.
type output struct {
	to  io.Writer
	err error
}

func (o *output) printf(format string, arguments ...any) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.to, format, arguments...)
	}
}

// failed tells whether nobody takes what is written.
func (o *output) failed() bool { return o.err != nil }

// clean makes one line of a text that comes from elsewhere, and takes away what a terminal would obey.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return utf8.RuneError
	}, text)
}

// table has aligned columns, of which the last one gets the rest of the line. text/tabwriter can
// neither cut a column nor let a note stand between two rows without losing the alignment.
type table struct{ rows []tableRow }

type tableRow struct {
	cells []string
	notes []string
}

func newTable(heads ...string) *table { return &table{[]tableRow{{cells: heads}}} }

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, tableRow{cells: cells})
}

// note adds lines beneath the last row; without a text, none.
func (t *table) note(text string) {
	last := &t.rows[len(t.rows)-1]
	last.notes = append(last.notes, wrap(text, lineWidth-2)...)
}

// print prints it, or a sentence if it has no rows.
func (t *table) print(to *output, otherwise string) {
	if len(t.rows) == 1 {
		to.printf("%s\n", otherwise)
		return
	}
	columns := len(t.rows[0].cells)
	widths := make([]int, columns)
	left := lineWidth
	for i := range columns - 1 {
		for _, r := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r.cells[i]))
		}
		left -= widths[i] + 2
	}
	for _, r := range t.rows {
		var line strings.Builder
		for i, cell := range r.cells[:columns-1] {
			fmt.Fprintf(&line, "%-*s  ", widths[i], cell)
		}
		line.WriteString(shorten(r.cells[columns-1], left))
		to.printf("%s\n", strings.TrimRight(line.String(), " "))
		for _, note := range r.notes {
			to.printf("  %s\n", note)
		}
	}
}

// shorten cuts what does not fit.
func shorten(text string, room int) string {
	if utf8.RuneCountInString(text) <= room {
		return text
	}
	return string([]rune(text)[:max(room-1, 0)]) + "…"
}

// wrap breaks a text into lines, and a word only if it is longer than a line.
func wrap(text string, room int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(clean(text)) {
		if line != "" && utf8.RuneCountInString(line+" "+word) <= room {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		letters := []rune(word)
		for len(letters) > room {
			lines = append(lines, string(letters[:room]))
			letters = letters[room:]
		}
		line = string(letters)
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// none stands where there is no value.
const none = "–"

func (s *session) at(t time.Time) string { return t.In(s.zone).Format("2006-01-02 15:04:05") }

func (s *session) atOrNone(t *time.Time) string {
	if t == nil {
		return none
	}
	return s.at(*t)
}

func number(n float64) string { return strconv.FormatFloat(math.Round(n*100)/100, 'f', -1, 64) }

func numberOrNone(n *float64) string {
	if n == nil {
		return none
	}
	return number(*n)
}

func textOrNone(text *string) string {
	if text == nil {
		return none
	}
	return *text
}

func milliseconds(ms float64) string {
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}

// counted is "1 trigger", "2 triggers".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// instant reads a time, or how long ago it was: 90m, 24h, 7d.
func (s *session) instant(flag, text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, s.zone); err == nil {
			return t, nil
		}
	}
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return time.Now().AddDate(0, 0, -n), nil
		}
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago < 0 {
		return time.Time{}, usage("--%s %q is neither a time such as 2026-11-23T15:04:05Z nor how long ago, such as 24h or 7d", flag, text)
	}
	return time.Now().Add(-ago), nil
}

// instantIfGiven is instant, and nil without a text.
func (s *session) instantIfGiven(flag, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	t, err := s.instant(flag, text)
	return &t, err
}
