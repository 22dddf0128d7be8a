package api

import (
	"encoding/base64"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const (
	defaultLimit = 50
	maxLimit     = 100
)

func metaOf(page postgres.Page, around postgres.Around) rest.Meta {
	return rest.Meta{After: encodeCursor(around.After), Before: encodeCursor(around.Before), Limit: page.Limit}
}

// readLimit reads how many a page has.
func readLimit(limit *string, problems *[]strict.Problem) int {
	text := given(limit)
	if text == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		*problems = append(*problems, strict.Problem{Field: "limit", Message: "must be a whole number from 1 to 100"})
	}
	return n
}

// readCursors reads where a page begins, at most one of the two.
func readCursors[P any](after, before *string, decode func(string) (P, bool), problems *[]strict.Problem) (afterAt, beforeAt *P) {
	refuse := func(field, message string) {
		*problems = append(*problems, strict.Problem{Field: field, Message: message})
	}
	cursor := func(name, text string) *P {
		if text == "" {
			return nil
		}
		position, valid := decode(text)
		if !valid {
			refuse(name, "is not a cursor of a list's meta")
		}
		return &position
	}
	afterAt, beforeAt = cursor("after", given(after)), cursor("before", given(before))
	if afterAt != nil && beforeAt != nil {
		refuse("before", "cannot be combined with after")
	}
	return afterAt, beforeAt
}

// readPage reads which part of a list is asked for.
func readPage(limit, after, before *string, problems *[]strict.Problem) (page postgres.Page) {
	page.Limit = readLimit(limit, problems)
	page.After, page.Before = readCursors(after, before, decodeCursor, problems)
	return page
}

// given is a parameter's text; an empty one counts as not given.
func given(parameter *string) string {
	if parameter == nil {
		return ""
	}
	return *parameter
}

// A cursor is a position, opaque to its reader. It names no webhook and no site: a list only
// ever shows its own rows, wherever it is asked to begin.
func encodeCursor(p *postgres.Position) *string {
	if p == nil {
		return nil
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.At.UnixMicro(), 10) + " " + p.ID))
	return &text
}

func decodeCursor(text string) (postgres.Position, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return postgres.Position{}, false
	}
	micros, id, _ := strings.Cut(string(raw), " ")
	at, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || at < 0 || at > endOfTime || !idPattern.MatchString(id) {
		return postgres.Position{}, false
	}
	return postgres.Position{At: time.UnixMicro(at).UTC(), ID: id}, true
}

// endOfTime is in the year 9999, which Postgres can hold.
const endOfTime = 253_402_300_799_999_999

// idPattern is what any id of ours looks like. What does not match is never looked up: Postgres
// would refuse a NUL, or bytes that are not UTF-8, as an error of ours.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
