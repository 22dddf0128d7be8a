package api

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`).id(t)
	legacy := w.key("legacy", "owner@example.com", "NULL")
	billing := w.user("billing@example.com", "billing")
	admin := w.user("admin@example.com", "admin")
	guestOfOther := w.user("guest@example.com", "guest") // without a membership of this site

	for name, user := range map[string]struct {
		key          string
		look, change int
	}{
		"owner":               {w.demo.OwnerKey, 200, 200},
		"admin":               {admin, 200, 200},
		"guest editor":        {w.demo.EditorKey, 200, 200},
		"key of before teams": {legacy, 200, 200},
		"viewer":              {w.demo.ViewerKey, 200, 403},
		"billing":             {billing, 200, 403},
		"guest of another":    {guestOfOther, 404, 404},
		"owner of another":    {w.demo.OtherSiteKey, 404, 404},
		"unknown key":         {strings.Repeat("k", 64), 401, 401},
		"no key":              {"", 401, 401},
	} {
		for _, path := range []string{"", "/" + id, "/" + id + "/triggers", "/" + id + "/deliveries"} {
			a := w.as(user.key, user.look, "GET", path, "")
			require.Equal(t, user.look == 401, a.header.Get("WWW-Authenticate") != "", name)
		}
		for _, call := range [][3]string{{"PATCH", "/" + id, `{"description": "x"}`}, {"PUT", "/" + id, `{"url": "https://example.com"}`}} {
			w.as(user.key, user.change, call[0], call[1], call[2])
		}
	}
	// A role is judged before the body, so that nothing is learned from refusals.
	w.as(w.demo.ViewerKey, 403, "POST", "", `{"bogus": 1}`)
	w.as(w.demo.ViewerKey, 403, "DELETE", "/wh_unknown", "")
	w.as(w.demo.OtherSiteKey, 404, "POST", "", `{"bogus": 1}`)
}

// user adds a member to the demo site's team and returns a key of theirs.
func (w *world) user(email, role string) string {
	w.t.Helper()
	w.exec(w.theirs, `INSERT INTO users (email, name, inserted_at, updated_at) VALUES ($1, 'n', now(), now())`, email)
	w.exec(w.theirs, `INSERT INTO team_memberships (team_id, user_id, role, inserted_at, updated_at)
		SELECT s.team_id, u.id, $2, now(), now() FROM sites s, users u WHERE s.id = $3 AND u.email = $1`, email, role, w.demo.SiteID)
	return w.key(role, email, "(SELECT team_id FROM team_memberships WHERE user_id = u.id)")
}

func (w *world) key(name, email, team string) string {
	w.t.Helper()
	raw := (name + strings.Repeat("-", 64))[:64]
	w.exec(w.theirs, `INSERT INTO api_keys (user_id, team_id, name, key_hash, key_prefix, inserted_at, updated_at)
		SELECT u.id, `+team+`, 'k', $2, 'k', now(), now() FROM users u WHERE u.email = $1`, email, plausible.HashKey(secretKeyBase, raw))
	return raw
}

func TestMalformedKeysAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, header := range [][]string{
		{}, {""}, {"Bearer"}, {"Bearer "}, {w.demo.OwnerKey}, {"Basic " + w.demo.OwnerKey}, {"Bearer " + w.demo.OwnerKey + " x"},
		{"Bearer " + strings.Repeat("x", 600)}, {"Bearer \x80\xff"}, {"Bearer " + w.demo.OwnerKey, "Bearer " + w.demo.OwnerKey},
	} {
		a := w.do("", "GET", w.demo.Domain+"/webhooks", "", func(r *http.Request) { r.Header["Authorization"] = header })
		require.Equal(t, 401, a.status, "%q", header)
		require.NotEmpty(t, a.json(t, "error"))
	}
	a := w.do("", "GET", w.demo.Domain+"/webhooks", "", func(r *http.Request) { r.Header.Set("Authorization", "bearer  "+w.demo.OwnerKey) })
	require.Equal(t, 200, a.status)
	require.NotContains(t, w.log.String(), w.demo.OwnerKey)
	require.NotContains(t, w.log.String(), w.demo.OwnerKey[:6], "not even the beginning of a key")
}

func TestSitesAreNamedByDomainOrID(t *testing.T) {
	w := newWorld(t)
	w.exec(w.theirs, `UPDATE sites SET domain = 'example.com/blog', domain_changed_from = 'demo.example.com' WHERE id = $1`, w.demo.SiteID)
	w.exec(w.theirs, `INSERT INTO sites (domain, timezone, team_id, inserted_at, updated_at)
		SELECT d, 'Etc/UTC', team_id, now(), now() FROM sites, unnest(ARRAY ['münchen.example', '100%.example']) d WHERE id = $1`, w.demo.SiteID)
	w.exec(w.own, `INSERT INTO webhooks (id, site_id, url) VALUES ('wh_a', $1, 'https://example.com')`, w.demo.SiteID)
	for path, found := range map[string]int{
		"example.com%2Fblog/webhooks/wh_a":            200,
		"example.com%2fblog/webhooks/wh_a/":           200,
		"demo.example.com/webhooks/wh_a":              200,
		"example%2Ecom%2Fblog/webhooks/wh%5Fa":        200,
		itoa(w.demo.SiteID) + "/webhooks/wh_a":        200,
		"m%C3%BCnchen.example/webhooks":               200,
		"100%25.example/webhooks":                     200,
		"100%25.example/webhooks/wh_a":                404,
		"example.com%252Fblog/webhooks/wh_a":          404,
		"example.com/webhooks/wh_a":                   404,
		"nothing.example.com/webhooks/wh_a":           404,
		itoa(w.demo.OtherSiteID) + "/webhooks/wh_a":   404,
		"99999999999999999999999999/webhooks":         404,
		"-1/webhooks":                                 404,
		"%00/webhooks":                                404,
		"%FF%FE/webhooks":                             404,
		"example.com%2Fblog/webhooks/%00":             404,
		"example.com%2Fblog/webhooks/wh_a%2Ftriggers": 404,
		"example.com%2Fblog/webhooks/..":              404,
	} {
		a := w.do(w.demo.OwnerKey, "GET", path, "")
		require.Equal(t, found, a.status, "%s: %s", path, a.text)
		if found == 404 {
			require.JSONEq(t, notFound, a.text, path)
		}
	}
	created := w.do(w.demo.OwnerKey, "POST", "example.com%2Fblog/webhooks/", `{"url": "https://example.com"}`)
	require.Equal(t, 201, created.status)
	require.Equal(t, "/api/sites/example.com%2Fblog/webhooks/"+created.id(t), created.header.Get("Location"))
}

// Whatever is asked of another site's things, under their path or under one's own, is answered
// as if it did not exist.
func TestNothingOfAnotherSiteIsReached(t *testing.T) {
	w := newWorld(t)
	theirs := w.do(w.demo.OtherSiteKey, "POST", w.demo.OtherDomain+"/webhooks", `{"url": "https://other.example.org", "triggers": [`+spike+`]}`)
	require.Equal(t, 201, theirs.status)
	webhook := theirs.id(t)
	tr := theirs.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string)
	w.delivery(w.demo.OtherSiteID, webhook, tr, "msg_theirs", 1)
	mine := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	w.delivery(w.demo.SiteID, mine.id(t), "tr_x", "msg_mine", 1)

	const full = `{"url": "https://example.com/taken"}`
	for _, under := range []string{w.demo.Domain + "/webhooks/" + webhook, w.demo.OtherDomain + "/webhooks/" + webhook, w.demo.Domain + "/webhooks/" + mine.id(t)} {
		calls := [][3]string{
			{"GET", "/triggers/" + tr, ""}, {"PUT", "/triggers/" + tr, spike}, {"PATCH", "/triggers/" + tr, "{}"}, {"DELETE", "/triggers/" + tr, ""},
			{"GET", "/deliveries/msg_theirs", ""},
			{"PUT", "", `{"url": "https://example.com", "triggers": [{"id": "` + tr + `", "type": "visitor_spike"}]}`},
			{"PATCH", "", `{"triggers": [{"id": "` + tr + `", "type": "visitor_spike"}]}`},
		}
		if !strings.HasSuffix(under, mine.id(t)) {
			calls = append(calls, [][3]string{
				{"GET", "", ""}, {"PUT", "", full}, {"PATCH", "", full}, {"DELETE", "", ""},
				{"GET", "/triggers", ""}, {"POST", "/triggers", spike}, {"GET", "/deliveries", ""},
			}...)
		}
		for _, call := range calls {
			a := w.do(w.demo.OwnerKey, call[0], under+call[1], call[2])
			require.Equal(t, []any{404, notFound}, []any{a.status, a.text}, "%s %s%s", call[0], under, call[1])
		}
	}

	// Filters and cursors choose among one's own.
	history := "/" + mine.id(t) + "/deliveries"
	require.Empty(t, w.owner(200, "GET", history+"?trigger_id="+tr, "").json(t, "deliveries"))
	w.delivery(w.demo.OtherSiteID, webhook, tr, "msg_theirs2", 2)
	page := w.do(w.demo.OtherSiteKey, "GET", w.demo.OtherDomain+"/webhooks/"+webhook+"/deliveries?limit=1", "")
	cursor := page.json(t, "meta.after").(string)
	for _, way := range []string{"after", "before"} {
		require.NotContains(t, w.owner(200, "GET", history+"?"+way+"="+cursor, "").text, "theirs")
	}

	unchanged := w.do(w.demo.OtherSiteKey, "GET", w.demo.OtherDomain+"/webhooks/"+webhook, "")
	require.Equal(t, theirs.json(t, "triggers"), unchanged.json(t, "triggers"))
	require.Equal(t, "https://other.example.org", unchanged.json(t, "url"))
}

func TestAKeyTakenAwayEndsWithinThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGrants()
		id := [32]byte{1}
		_, found := g.get(id)
		require.False(t, found)
		g.put(id, access{canChange: true})
		time.Sleep(grantTime - time.Nanosecond)
		granted, found := g.get(id)
		require.True(t, found && granted.canChange)
		time.Sleep(time.Nanosecond)
		_, found = g.get(id)
		require.False(t, found)
	})
}

func TestGrantsAreBounded(t *testing.T) {
	g := newGrants()
	for i := range maxGrants + 100 {
		g.put([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, access{})
	}
	require.Len(t, g.entries, maxGrants)
	_, found := g.get([32]byte{99, maxGrants >> 8})
	require.True(t, found, "the newest is there")
}

func TestPlausibleAwayIsSaidSo(t *testing.T) {
	w := newWorld(t)
	w.owner(200, "GET", "", "")
	w.theirs.Close()
	w.owner(200, "GET", "", "") // remembered
	a := w.as(w.demo.ViewerKey, 503, "GET", "", "")
	require.Contains(t, a.text, "Plausible's database cannot be read")
	w.own.Close()
	a = w.owner(500, "GET", "", "") // a closed pool is no state of production: what is unknown is internal
	require.Equal(t, `{"error":"internal error (request `+a.header.Get("X-Request-Id")+`)"}`, a.text)
	require.Contains(t, w.log.String(), "closed pool", "the log has it in full")
}
