package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// request is a line of the log: what one client asked for.
type request struct {
	client   string
	at       time.Time
	method   string
	target   string
	status   int
	referrer string // empty: none
	agent    string // empty: none
}

// longestLine is more than any server writes.
const longestLine = 64 << 10

// readLog reads a log, gzipped or not. Lines that it cannot make sense of are counted.
func readLog(from io.Reader) (requests []request, bad int, err error) {
	lines := bufio.NewReaderSize(from, longestLine)
	if magic, _ := lines.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(lines)
		if err != nil {
			return nil, 0, err
		}
		lines = bufio.NewReaderSize(unzipped, longestLine)
	}
	for {
		line, tooLong, err := lines.ReadLine()
		if errors.Is(err, io.EOF) {
			return requests, bad, nil
		}
		if err != nil {
			return nil, 0, err
		}
		for rest := tooLong; rest && err == nil; {
			_, rest, err = lines.ReadLine()
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r, err := parseCombined(string(line))
		if tooLong || err != nil {
			bad++
			continue
		}
		requests = append(requests, r)
	}
}

// parseCombined reads a line of Apache's combined log format:
//
//	client ident user [time] "method target protocol" status bytes "referrer" "agent"
func parseCombined(line string) (request, error) {
	c := cursor{rest: line}
	client, _, _ := c.word(), c.word(), c.word()
	when := c.between('[', ']')
	asked := c.quoted()
	status, _ := c.word(), c.word()
	referrer, agent := c.quoted(), c.quoted()
	if c.err != nil {
		return request{}, c.err
	}
	at, err := time.Parse("02/Jan/2006:15:04:05 -0700", when)
	if err != nil {
		return request{}, fmt.Errorf("%q is not a time", when)
	}
	code, err := strconv.Atoi(status)
	if err != nil || code < 100 || code > 999 {
		return request{}, fmt.Errorf("%q is not a status", status)
	}
	method, target, found := strings.Cut(asked, " ")
	if !found {
		return request{}, fmt.Errorf("%q is not a request", asked)
	}
	if i := strings.LastIndex(target, " HTTP/"); i >= 0 {
		target = target[:i]
	}
	return request{
		client: client, at: at.UTC(), method: method, target: target, status: code,
		referrer: orNone(referrer), agent: orNone(agent),
	}, nil
}

func orNone(field string) string {
	if field == "-" {
		return ""
	}
	return field
}

// cursor takes fields off a line. After the first error it takes nothing.
type cursor struct {
	rest string
	err  error
}

func (c *cursor) word() string {
	c.rest = strings.TrimLeft(c.rest, " ")
	word, rest, _ := strings.Cut(c.rest, " ")
	if word == "" {
		c.fail("the line ends early")
	}
	c.rest = rest
	return word
}

func (c *cursor) between(left, right byte) string {
	c.rest = strings.TrimLeft(c.rest, " ")
	end := strings.IndexByte(c.rest, right)
	if c.rest == "" || c.rest[0] != left || end < 0 {
		c.fail(fmt.Sprintf("%c…%c is missing", left, right))
		return ""
	}
	text := c.rest[1:end]
	c.rest = c.rest[end+1:]
	return text
}

// quoted takes a field in quotes, in which the server wrote \" for a quote.
func (c *cursor) quoted() string {
	c.rest = strings.TrimLeft(c.rest, " ")
	if !strings.HasPrefix(c.rest, `"`) {
		c.fail("a quoted field is missing")
		return ""
	}
	var text strings.Builder
	for i := 1; i < len(c.rest); i++ {
		switch b := c.rest[i]; {
		case b == '"':
			c.rest = c.rest[i+1:]
			return text.String()
		case b == '\\' && i+1 < len(c.rest) && (c.rest[i+1] == '"' || c.rest[i+1] == '\\'):
			i++
			text.WriteByte(c.rest[i])
		default:
			text.WriteByte(b)
		}
	}
	c.fail("a quoted field does not end")
	return ""
}

func (c *cursor) fail(reason string) {
	if c.err == nil {
		c.err = errors.New(reason)
	}
	c.rest = ""
}
