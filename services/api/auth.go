package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

// access is what a request's key may do, and with which site.
type access struct {
	site      plausible.Site
	canChange bool
}

// look and change admit a request: handlers get the access with it, so none can be reached
// without.
func (a *api) look(handle func(echo.Context, access) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		access, err := a.admit(c)
		if err != nil {
			return err
		}
		return handle(c, access)
	}
}

func (a *api) change(handle func(echo.Context, access) error) echo.HandlerFunc {
	return a.look(func(c echo.Context, access access) error {
		if !access.canChange {
			return errMayOnlyLook
		}
		return handle(c, access)
	})
}

func (a *api) admit(c echo.Context) (access, error) {
	key, err := bearer(c.Request().Header.Values(echo.HeaderAuthorization))
	if err != nil {
		return access{}, err
	}
	site := param(c, "site_id")
	id := sha256.Sum256([]byte(key + "\x00" + site)) // a key has no NUL: bearer saw to that
	granted, found := a.grants.get(id)
	if !found {
		site, role, err := a.directory.Access(c.Request().Context(), key, site)
		switch {
		case errors.Is(err, plausible.ErrUnknownKey), errors.Is(err, plausible.ErrNoSite):
			return access{}, err
		case err != nil:
			return access{}, plausibleAway(c, err)
		}
		granted = access{site: site, canChange: role.CanChange()}
		a.grants.put(id, granted)
	}
	c.Set(keySite, granted.site.ID)
	return granted, nil
}

// plausibleAway tells a database that does not answer from a request that nobody waits for.
func plausibleAway(c echo.Context, err error) error {
	if gone := c.Request().Context().Err(); gone != nil {
		return fmt.Errorf("%w: %w", gone, err)
	}
	return fmt.Errorf("%w: %w", errPlausibleAway, err)
}

// bearer reads the key of an Authorization header. Plausible's keys have 64 characters; others
// are refused here only where they could not be a key at all.
func bearer(headers []string) (string, error) {
	if len(headers) != 1 {
		return "", errNoKey
	}
	scheme, key, _ := strings.Cut(headers[0], " ")
	key = strings.TrimSpace(key)
	if !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > 512 {
		return "", errNoKey
	}
	for _, b := range []byte(key) {
		if b <= ' ' || b >= 0x7f {
			return "", errNoKey
		}
	}
	return key, nil
}

// param is a part of the path, unescaped; empty if it cannot be, which is nothing's name.
func param(c echo.Context, name string) string {
	text, err := url.PathUnescape(c.Param(name))
	if err != nil {
		return ""
	}
	return text
}

// grants remembers accepted answers for a short while, by a hash of key and site: a role that
// was taken away in Plausible ends here within grantTime. Refusals are not remembered, so that
// a new key works at once.
type grants struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]grant
}

type grant struct {
	access
	until time.Time
}

const (
	grantTime = 30 * time.Second
	maxGrants = 10_000 // about 2 MB
)

func newGrants() *grants { return &grants{entries: map[[sha256.Size]byte]grant{}} }

func (g *grants) get(id [sha256.Size]byte) (access, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found, known := g.entries[id]
	if !known || !time.Now().Before(found.until) {
		return access{}, false
	}
	return found.access, true
}

// put makes room when it is full: what has expired goes, or any other.
func (g *grants) put(id [sha256.Size]byte, a access) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if len(g.entries) >= maxGrants {
		for id, entry := range g.entries {
			if !now.Before(entry.until) {
				delete(g.entries, id)
			}
		}
		for id := range g.entries {
			if len(g.entries) < maxGrants {
				break
			}
			delete(g.entries, id)
		}
	}
	g.entries[id] = grant{access: a, until: now.Add(grantTime)}
}
