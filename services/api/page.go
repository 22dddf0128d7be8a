package api

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

const (
	defaultLimit = 50
	maxLimit     = 100
)

// meta is what a list says of itself: the cursors of the pages around it, null where there is none.
type meta struct {
	After  *string `json:"after"`
	Before *string `json:"before"`
	Limit  int     `json:"limit"`
}

func metaOf(page postgres.Page, around postgres.Around) meta {
	return meta{After: encodeCursor(around.After), Before: encodeCursor(around.Before), Limit: page.Limit}
}

// readPage reads limit, after and before.
func readPage(query url.Values, problems *[]strict.Problem) postgres.Page {
	refuse := func(field, message string) {
		*problems = append(*problems, strict.Problem{Field: field, Message: message})
	}
	page := postgres.Page{Limit: defaultLimit}
	if text := query.Get("limit"); text != "" {
		var err error
		if page.Limit, err = strconv.Atoi(text); err != nil || page.Limit < 1 || page.Limit > maxLimit {
			refuse("limit", "must be a whole number from 1 to 100")
		}
	}
	cursor := func(name string) *postgres.Position {
		text := query.Get(name)
		if text == "" {
			return nil
		}
		position, valid := decodeCursor(text)
		if !valid {
			refuse(name, "is not a cursor of a list's meta")
		}
		return &position
	}
	page.After, page.Before = cursor("after"), cursor("before")
	if page.After != nil && page.Before != nil {
		refuse("before", "cannot be combined with after")
	}
	return page
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
