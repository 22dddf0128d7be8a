package api

import (
	"encoding/base64"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/database"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

const (
	defaultLimit = 50
	maxLimit     = 100
)

// cursors are how the positions of a list are written for its readers, to whom they are opaque. They name no
// webhook and no site: a list only ever shows its own rows, wherever it is asked to begin.
type cursors[P any] struct {
	write func(P) string
	read  func(string) (P, bool)
}

// page reads which part of a list is asked for.
func (c cursors[P]) page(limit, after, before *string, problems *[]strict.Problem) database.Page[P] {
	refuse := func(field, message string) {
		*problems = append(*problems, strict.Problem{Field: field, Message: message})
	}
	page := database.Page[P]{Limit: defaultLimit}
	if text := given(limit); text != "" {
		var err error
		if page.Limit, err = strconv.Atoi(text); err != nil || page.Limit < 1 || page.Limit > maxLimit {
			refuse("limit", "must be a whole number from 1 to 100")
		}
	}
	cursor := func(name, text string) *P {
		if text == "" {
			return nil
		}
		var position P
		raw, err := base64.RawURLEncoding.DecodeString(text)
		valid := err == nil
		if valid {
			position, valid = c.read(string(raw))
		}
		if !valid {
			refuse(name, "is not a cursor of a list's meta")
		}
		return &position
	}
	page.After, page.Before = cursor("after", given(after)), cursor("before", given(before))
	if page.After != nil && page.Before != nil {
		refuse("before", "cannot be combined with after")
	}
	return page
}

// meta tells of the pages around one.
func (c cursors[P]) meta(page database.Page[P], around database.Around[P]) rest.Meta {
	cursor := func(p *P) *string {
		if p == nil {
			return nil
		}
		return new(base64.RawURLEncoding.EncodeToString([]byte(c.write(*p))))
	}
	return rest.Meta{After: cursor(around.After), Before: cursor(around.Before), Limit: page.Limit}
}

// given is a parameter's text; an empty one counts as not given.
func given(parameter *string) string {
	if parameter == nil {
		return ""
	}
	return *parameter
}

// ofOurs are the cursors of our own lists.
var ofOurs = cursors[postgres.Position]{
	write: func(p postgres.Position) string { return strconv.FormatInt(p.At.UnixMicro(), 10) + " " + p.ID },
	read: func(text string) (postgres.Position, bool) {
		micros, id, _ := strings.Cut(text, " ")
		at, err := strconv.ParseInt(micros, 10, 64)
		if err != nil || at < 0 || at > endOfTime || !idPattern.MatchString(id) {
			return postgres.Position{}, false
		}
		return postgres.Position{At: time.UnixMicro(at).UTC(), ID: id}, true
	},
}

// endOfTime is in the year 9999, which Postgres can hold.
const endOfTime = 253_402_300_799_999_999

// idPattern is what any id of ours looks like. What does not match is never looked up: Postgres
// would refuse a NUL, or bytes that are not UTF-8, as an error of ours.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
