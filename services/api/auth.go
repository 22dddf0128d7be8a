package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

// access is what a key may do, and with which site.
type access struct {
	site      plausible.Site
	role      plausible.Role // roleOperator has every site
	canChange bool
	userID    *int64 // in Plausible; nil: the operator
	keyPrefix string // what Plausible shows of the key; empty: the operator's token
}

// keySum stands for a key where it is remembered.
type keySum [sha256.Size]byte

// admit lets the calls of an operation through that its key is allowed. The handlers get the call from
// their context, so none can be reached without.
func (a *api) admit(o *operation) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			call := &call{operation: o}
			if o.scope != "" {
				if err := a.authenticate(c, call); err != nil {
					return err
				}
			}
			for _, name := range c.ParamNames() {
				if name != "site_id" && !idPattern.MatchString(param(c, name)) {
					return errNotFound
				}
			}
			if o.scope == scopeChange && !call.canChange {
				return errMayOnlyLook
			}
			c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), callKey{}, call)))
			return next(c)
		}
	}
}

// authenticate finds out whose key it is, and for an operation of a site, what it may do there.
func (a *api) authenticate(c echo.Context, call *call) (err error) {
	if call.key, err = bearer(c.Request().Header.Values(echo.HeaderAuthorization)); err != nil {
		return err
	}
	call.keySum = sha256.Sum256([]byte(call.key))
	if err := a.limiter.take(c, call.keySum); err != nil || !call.ofSite {
		return err
	}
	call.access, err = a.grant(c.Request().Context(), call, param(c, "site_id"))
	if err == nil {
		c.Set(keySite, call.site.ID)
	}
	return err
}

// isOperator tells whether a key is the operator's token, in a time that tells nothing of it.
func (a *api) isOperator(key string) bool {
	return a.adminToken != "" && subtle.ConstantTimeCompare([]byte(key), []byte(a.adminToken)) == 1
}

// grant is what the key of a call may do with a site.
func (a *api) grant(ctx context.Context, call *call, site string) (access, error) {
	id := sha256.Sum256(append(call.keySum[:], site...))
	granted, found := a.grants.get(id)
	if found {
		return granted, nil
	}
	var err error
	if a.isOperator(call.key) {
		granted.role, granted.canChange = roleOperator, true
		granted.site, err = a.directory.AnySite(ctx, site)
	} else {
		var of plausible.Grant
		of, err = a.directory.Access(ctx, call.key, site)
		granted = access{site: of.Site, role: of.Role, canChange: of.Role.CanChange(), userID: &of.UserID, keyPrefix: of.KeyPrefix}
	}
	if err != nil {
		return access{}, directoryError(ctx, err)
	}
	a.grants.put(id, granted)
	return granted, nil
}

// directoryError tells a database that does not answer from a refusal, and from a request that nobody
// waits for.
func directoryError(ctx context.Context, err error) error {
	switch gone := ctx.Err(); {
	case errors.Is(err, plausible.ErrUnknownKey), errors.Is(err, plausible.ErrNoSite):
		return err
	case gone != nil:
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
