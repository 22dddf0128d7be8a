package front

import (
	"bytes"
	"errors"
	"strings"
)

var (
	errEmptyQuery      = errors.New("Code: 62. DB::Exception: Empty query. (SYNTAX_ERROR)")
	errSeveralQueries  = errors.New("Code: 62. DB::Exception: Multi-statements are not allowed. (SYNTAX_ERROR)")
	errQueryTouchFiles = errors.New("Code: 48. DB::Exception: INTO OUTFILE and FROM INFILE are for a client, not for a server. (NOT_IMPLEMENTED)")
)

// insertion is an INSERT whose rows come as data in a format, cut where the name
// of a file with these rows can be put in: head + FROM INFILE '…' + tail.
type insertion struct {
	head string // INSERT INTO t (a, b)
	tail string // SETTINGS …, FORMAT name; never empty
	data int    // where in the text the rows begin
}

// examine tells what the front has to know of a query and no more, the engine
// parses it: an insertion whose rows are in a format, or the text without its
// closing semicolon. A server takes one statement at a time and leaves a client's
// files alone, so other texts are refused as it would refuse them.
func examine(text string) (query string, rows *insertion, err error) {
	s := scanner{text: text}
	first := s.next()
	if first.end == first.start {
		return "", nil, errEmptyQuery
	}
	if first.is("INSERT") {
		rows, err := examineInsert(text, first)
		if rows != nil || err != nil {
			return "", rows, err
		}
	}
	end := len(text)
	previous := first
	for t := first; t.end > t.start; t = s.next() {
		switch {
		case end < len(text):
			return "", nil, errSeveralQueries
		case t.text == ";":
			end = t.start
		case t.is("OUTFILE") && previous.is("INTO"):
			return "", nil, errQueryTouchFiles
		}
		previous = t
	}
	if end == first.start {
		return "", nil, errEmptyQuery
	}
	return text[:end], nil, nil
}

// examineInsert returns nil when the rows do not follow a FORMAT: they come from
// a SELECT, or are VALUES within the text, which the engine reads by itself.
func examineInsert(text string, first token) (*insertion, error) {
	s := scanner{text: text, at: first.end}
	var settings, name token // where SETTINGS begins, and the word after FORMAT
	depth := 0
	for t := s.afterTable(); t.end > t.start; t = s.next() {
		depth += t.step()
		if depth > 0 {
			continue
		}
		switch {
		case t.text == ";", t.is("SELECT"), t.is("WITH"):
			return nil, nil
		case t.is("INFILE"):
			return nil, errQueryTouchFiles
		case t.is("SETTINGS"):
			settings = t
		case t.is("VALUES"):
			if strings.TrimSpace(text[t.end:]) != "" {
				return nil, nil
			}
			return cut(text, settings, t, "FORMAT Values", len(text)), nil
		case t.is("FORMAT"):
			if name = s.next(); !name.word {
				return nil, nil
			}
			if name.is("Values") && strings.TrimSpace(text[name.end:]) != "" {
				return nil, nil
			}
			return cut(text, settings, t, text[t.start:name.end], rowsAfter(text, name.end)), nil
		}
	}
	return nil, nil
}

// afterTable passes INTO, TABLE or FUNCTION and the table's name, which may be
// spelt like a keyword, and returns the token behind.
func (s *scanner) afterTable() token {
	t := s.next()
	for t.is("INTO") || t.is("TABLE") || t.is("FUNCTION") {
		t = s.next()
	}
	t = s.next()
	for t.text == "." {
		s.next()
		t = s.next()
	}
	return t
}

func cut(text string, settings, format token, formatClause string, data int) *insertion {
	split := format.start
	between := ""
	if settings.end > settings.start {
		split = settings.start
		between = text[settings.start:format.start]
	}
	return &insertion{head: text[:split], tail: between + formatClause, data: data}
}

// rowsAfter skips what may stand between a format's name and its rows: blanks, a
// semicolon, and one line break. What follows belongs to the rows, be it a blank.
func rowsAfter(text string, at int) int {
	blank := func() {
		for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\f') {
			at++
		}
	}
	blank()
	if at < len(text) && text[at] == ';' {
		at++
		blank()
	}
	if at < len(text) && text[at] == '\r' {
		at++
	}
	if at < len(text) && text[at] == '\n' {
		at++
	}
	return at
}

// token is a piece of SQL; an empty one is the end of the text.
type token struct {
	start, end int
	text       string
	word       bool
}

func (t token) is(keyword string) bool { return t.word && strings.EqualFold(t.text, keyword) }

// step is how much deeper the brackets are behind the token.
func (t token) step() int {
	switch t.text {
	case "(", "[", "{":
		return 1
	case ")", "]", "}":
		return -1
	}
	return 0
}

// scanner walks over SQL far enough to tell words from what only looks like them
// inside quotes and comments.
type scanner struct {
	text string
	at   int
}

func (s *scanner) next() token {
	s.skip()
	start := s.at
	if start == len(s.text) {
		return token{start: start, end: start}
	}
	c := s.text[start]
	word := false
	switch {
	case c == '\'' || c == '"' || c == '`':
		s.quoted(c)
	case c == '$' && s.heredoc():
	case isWord(c):
		word = true
		for s.at < len(s.text) && isWord(s.text[s.at]) {
			s.at++
		}
	default:
		s.at++
	}
	return token{start: start, end: s.at, text: s.text[start:s.at], word: word}
}

// skip passes blanks and comments.
func (s *scanner) skip() {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.IndexByte(" \t\n\r\f\v", rest[0]) >= 0:
			s.at++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "# "), strings.HasPrefix(rest, "#!"):
			s.past(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			s.past(rest[2:], "*/")
		default:
			return
		}
	}
}

// past moves behind the first mark, or to the end of the text if there is none.
func (s *scanner) past(rest, mark string) {
	if i := strings.Index(rest, mark); i >= 0 {
		s.at = len(s.text) - len(rest) + i + len(mark)
		return
	}
	s.at = len(s.text)
}

// quoted moves behind the closing quote. A backslash escapes, and so does a
// doubled quote, which reads as two quoted pieces in a row and needs no care.
func (s *scanner) quoted(quote byte) {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case quote:
			s.at++
			return
		}
	}
	s.at = len(s.text)
}

// heredoc moves behind $tag$…$tag$ and tells whether there was one.
func (s *scanner) heredoc() bool {
	rest := s.text[s.at:]
	i := strings.IndexByte(rest[1:], '$')
	if i < 0 || bytes.ContainsFunc([]byte(rest[1:1+i]), func(r rune) bool { return r > 127 || !isWord(byte(r)) }) {
		return false
	}
	tag := rest[:i+2]
	j := strings.Index(rest[len(tag):], tag)
	if j < 0 {
		return false
	}
	s.at += len(tag) + j + len(tag)
	return true
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// literal quotes a value for SQL. A NUL is spelt out, because the engine takes its
// text as a C string.
func literal(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(value) + "'"
}

// identifier quotes a name for SQL.
func identifier(name string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`", "\x00", `\0`).Replace(name) + "`"
}
