package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

// at sends a request of the owner to a path under the demo site.
func (w *world) at(key, method, path, body string, edit ...func(*http.Request)) answer {
	w.t.Helper()
	return w.do(key, method, w.demo.Domain+path, body, edit...)
}

// sites are "domain role" of a key's list, walked through in pages of a size.
func (w *world) sites(key string, limit int) (lines []string) {
	w.t.Helper()
	cursor := ""
	for {
		a := w.do(key, "GET", fmt.Sprintf("?limit=%d&after=%s", limit, cursor), "")
		require.Equal(w.t, 200, a.status, a.text)
		for _, s := range a.json(w.t, "sites").([]any) {
			lines = append(lines, fmt.Sprint(s.(map[string]any)["domain"], " ", s.(map[string]any)["role"]))
		}
		next, more := a.json(w.t, "meta.after").(string)
		if !more {
			return lines
		}
		cursor = next
	}
}

func TestSitesAreThoseOfTheKey(t *testing.T) {
	w := newWorld(t)
	w.exec(w.theirs, `INSERT INTO sites (domain, timezone, team_id, inserted_at, updated_at)
		SELECT d, 'Etc/UTC', team_id, now(), now() FROM sites, unnest(ARRAY ['zoo.example', 'example.com/blog', 'münchen.example']) d WHERE id = $1`, w.demo.SiteID)
	owner := []string{"demo.example.com owner", "example.com/blog owner", "münchen.example owner", "zoo.example owner"}
	for _, limit := range []int{1, 2, 3, 100} {
		require.ElementsMatch(t, owner, w.sites(w.demo.OwnerKey, limit), "%d at a time", limit)
	}
	require.Equal(t, []string{"demo.example.com editor"}, w.sites(w.demo.EditorKey, 50), "a guest editor's one site")
	require.Contains(t, w.sites(w.demo.ViewerKey, 50), "zoo.example viewer")
	require.Equal(t, []string{w.demo.OtherDomain + " owner"}, w.sites(w.demo.OtherSiteKey, 50))

	first := w.do(w.demo.OwnerKey, "GET", "?limit=2", "")
	second := w.do(w.demo.OwnerKey, "GET", "?limit=2&after="+first.json(t, "meta.after").(string), "")
	back := w.do(w.demo.OwnerKey, "GET", "?limit=2&before="+second.json(t, "meta.before").(string), "")
	require.Equal(t, first.json(t, "sites"), back.json(t, "sites"))

	require.Equal(t, 401, w.do("", "GET", "", "").status)
	require.Equal(t, 401, w.do(strings.Repeat("k", 64), "GET", "", "").status)
	for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?limit=1&limit=2", "?after=*", "?after=AA", "?after=_w", "?after=YQ&before=YQ"} { // NUL; not UTF-8
		require.Equal(t, 422, w.do(w.demo.OwnerKey, "GET", query, "").status, query)
	}
}

func TestASiteIsShownAsInTheList(t *testing.T) {
	w := newWorld(t)
	w.api.adminToken = strings.ReplaceAll(operator, " ", "-")
	for key, canChange := range map[string]bool{w.demo.OwnerKey: true, w.demo.EditorKey: true, w.demo.ViewerKey: false, w.api.adminToken: true} {
		var listed any
		for _, s := range w.do(key, "GET", "?limit=100", "").json(t, "sites").([]any) {
			if s.(map[string]any)["domain"] == w.demo.Domain {
				listed = s
			}
		}
		shown := w.at(key, "GET", "", "")
		require.Equal(t, 200, shown.status, shown.text)
		require.JSONEq(t, string(mustMarshal(listed)), shown.text)
		require.Equal(t, canChange, shown.json(t, "can_change"))
	}
	require.Equal(t, 404, w.at(w.demo.OtherSiteKey, "GET", "", "").status)
	require.Equal(t, 404, w.do(w.demo.OwnerKey, "GET", "nothing.example.com", "").status)
}

func TestGoalsAreThoseOfTheSite(t *testing.T) {
	w := newWorld(t)
	all := w.at(w.demo.ViewerKey, "GET", "/goals", "")
	require.Equal(t, 200, all.status)
	goals := all.json(t, "goals").([]any)
	require.GreaterOrEqual(t, len(goals), 4)
	byID := map[any]map[string]any{}
	for _, g := range goals {
		byID[g.(map[string]any)["id"]] = g.(map[string]any)
	}
	require.Equal(t, map[string]any{"id": float64(w.demo.Goals.Signup), "display_name": "Signup", "event_name": "Signup", "page_path": nil, "scroll_threshold": nil, "custom_props": map[string]any{}},
		byID[float64(w.demo.Goals.Signup)])
	require.Equal(t, 75.0, byID[float64(w.demo.Goals.BlogScroll)]["scroll_threshold"])

	var walked []any
	for cursor := ""; ; {
		page := w.at(w.demo.OwnerKey, "GET", "/goals?limit=1&after="+cursor, "")
		walked = append(walked, page.json(t, "goals").([]any)...)
		next, more := page.json(t, "meta.after").(string)
		if !more {
			break
		}
		cursor = next
	}
	require.Equal(t, goals, walked)
	require.Equal(t, 404, w.at(w.demo.OtherSiteKey, "GET", "/goals", "").status)
	require.Equal(t, 422, w.at(w.demo.OwnerKey, "GET", "/goals?after=YQ", "").status)
}

const operator = "an operator's token of more than 32 characters"

func TestTheOperatorMayEverything(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, 401, w.at(strings.ReplaceAll(operator, " ", "-"), "GET", "/webhooks", "").status, "no token is configured")
	w.api.adminToken = strings.ReplaceAll(operator, " ", "-")
	require.ElementsMatch(t, []string{"demo.example.com operator", w.demo.OtherDomain + " operator"}, w.sites(w.api.adminToken, 1))
	for _, domain := range []string{w.demo.Domain, w.demo.OtherDomain, itoa(w.demo.SiteID)} {
		require.Equal(t, 201, w.do(w.api.adminToken, "POST", domain+"/webhooks", `{"url": "https://example.com"}`).status)
	}
	require.Equal(t, 404, w.do(w.api.adminToken, "GET", "nothing.example.com/webhooks", "").status)
	change := w.at(w.api.adminToken, "GET", "/audit", "").json(t, "changes").([]any)[0].(map[string]any)
	require.Equal(t, []any{nil, nil}, []any{change["user_id"], change["key_prefix"]})
	for _, wrong := range []string{w.api.adminToken[1:], w.api.adminToken + "x", ""} {
		require.Equal(t, 401, w.at(wrong, "GET", "/webhooks", "").status)
	}
	require.NotContains(t, w.log.String(), "operator's-token")
}

func TestSuperAdminsMayEverything(t *testing.T) {
	w := newWorld(t)
	var viewer int64
	require.NoError(t, w.theirs.QueryRow(t.Context(), "SELECT id FROM users WHERE email = 'viewer@example.com'").Scan(&viewer))
	var err error
	w.api.directory, err = plausible.Open(t.Context(), w.theirs, secretKeyBase, plausible.SuperAdmins(viewer))
	require.NoError(t, err)
	require.Equal(t, 201, w.do(w.demo.ViewerKey, "POST", w.demo.OtherDomain+"/webhooks", `{"url": "https://example.com"}`).status)
	require.Contains(t, w.sites(w.demo.ViewerKey, 50), w.demo.OtherDomain+" super_admin")
	require.Equal(t, 404, w.do(w.demo.EditorKey, "GET", w.demo.OtherDomain+"/webhooks", "").status)
}

func TestPlausiblesNotificationsAreImported(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	body := `{"webhook_id": "` + id + `"}`
	nothing := w.at(w.demo.OwnerKey, "POST", "/import-notifications", body)
	require.JSONEq(t, `{"triggers": [], "skipped": 0}`, nothing.text)

	w.exec(w.theirs, `INSERT INTO spike_notifications (site_id, type, threshold, recipients, inserted_at, updated_at) VALUES ($1, 'spike', 77, '{a@example.com}', now(), now()), ($1, 'drop', 3, '{}', now(), now())`, w.demo.SiteID)
	imported := w.at(w.demo.OwnerKey, "POST", "/import-notifications", body)
	require.Equal(t, 200, imported.status, imported.text)
	var got []string
	for _, tr := range imported.json(t, "triggers").([]any) {
		got = append(got, fmt.Sprint(tr.(map[string]any)["type"], " ", string(mustMarshal(tr.(map[string]any)["config"]))))
	}
	require.ElementsMatch(t, []string{
		`visitor_drop {"threshold":3,"window_seconds":43200}`, `visitor_spike {"threshold":77,"window_seconds":300}`,
	}, got, "without the hour's norm, which is off where a threshold is given")
	require.Len(t, w.owner(200, "GET", "/"+id, "").json(t, "triggers"), 2)
	again := w.at(w.demo.OwnerKey, "POST", "/import-notifications", body)
	require.JSONEq(t, `{"triggers": [], "skipped": 2}`, again.text)

	require.Equal(t, 403, w.at(w.demo.ViewerKey, "POST", "/import-notifications", body).status)
	require.Equal(t, 404, w.at(w.demo.OwnerKey, "POST", "/import-notifications", `{"webhook_id": "wh_other"}`).status)
	require.Equal(t, 404, w.at(w.demo.OwnerKey, "POST", "/import-notifications", `{"webhook_id": "wh other"}`).status)
	require.Equal(t, 422, w.at(w.demo.OwnerKey, "POST", "/import-notifications", `{}`).status)
	require.Equal(t, 422, w.at(w.demo.OwnerKey, "POST", "/import-notifications", `{"webhook_id": null, "x": 1}`).status)
	var stays int
	require.NoError(t, w.theirs.QueryRow(t.Context(), "SELECT count(*) FROM spike_notifications").Scan(&stays))
	require.Equal(t, 2, stays)
}
