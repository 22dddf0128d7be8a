package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
)

// call is a request made of an operation's example, with ids for its path.
func (w *world) call(key string, r route, ids map[string]string) answer {
	w.t.Helper()
	path := r.place[1]
	for name, id := range ids {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(id))
	}
	body := ""
	if r.written.RequestBody != nil {
		raw, err := json.Marshal(r.written.RequestBody.Value.Content["application/json"].Example)
		require.NoError(w.t, err)
		body = strings.ReplaceAll(string(raw), "wh_2f3k5q6y7zj4m2a5c6d7e2b3n4", ids["id"])
	}
	return w.do(key, r.method, path, body)
}

// TestEveryOperationKnowsItsUsers asks for each operation of the document as each kind of user. Who may not look is answered
// everywhere as if there were nothing; who may only look changes nothing.
func TestEveryOperationKnowsItsUsers(t *testing.T) {
	w := newWorld(t)
	document, err := readDocument()
	require.NoError(t, err)
	operations, err := readOpenAPI(openAPI)
	require.NoError(t, err)

	w.exec(w.theirs, `INSERT INTO sites (id, domain, timezone, team_id, inserted_at, updated_at) SELECT 900, 'second.example.com', 'Etc/UTC', team_id, now(), now() FROM sites WHERE id = $1`, w.demo.SiteID)
	guestOfSecond := w.user("second@example.com", "guest")
	w.exec(w.theirs, `INSERT INTO guest_memberships (team_membership_id, site_id, role, inserted_at, updated_at)
		SELECT m.id, 900, 'editor', now(), now() FROM team_memberships m JOIN users u ON u.id = m.user_id WHERE u.email = 'second@example.com'`)
	deleted := w.key("deleted", "owner@example.com", "NULL")
	w.exec(w.theirs, "DELETE FROM api_keys WHERE key_hash = $1", plausible.HashKey(secretKeyBase, deleted))
	const nobody, nothing, look, change = 401, 404, 403, 200
	users := map[string]struct {
		key string
		may int
	}{
		"owner":                      {w.demo.OwnerKey, change},
		"admin":                      {w.user("admin@example.com", "admin"), change},
		"editor":                     {w.user("colleague@example.com", "editor"), change},
		"guest editor":               {w.demo.EditorKey, change},
		"key of before teams":        {w.key("legacy", "owner@example.com", "NULL"), change},
		"viewer":                     {w.demo.ViewerKey, look},
		"billing":                    {w.user("billing@example.com", "billing"), look},
		"guest of another site":      {guestOfSecond, nothing},
		"owner, key of another team": {w.key("other-team", "owner@example.com", "(SELECT team_id FROM sites WHERE domain = 'other.example.org')"), nothing},
		"owner of another site":      {w.demo.OtherSiteKey, nothing},
		"deleted key":                {deleted, nobody},
		"unknown key":                {strings.Repeat("k", 64), nobody},
	}
	made := 0
	for _, r := range document.routes {
		operation := operations[r.written.OperationID]
		if operation.scope == "" || !operation.ofSite || operation.streams {
			continue
		}
		for who, user := range users {
			// Things of their own for each request: some of them are removed by it.
			created := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
			ids := map[string]string{
				"site_id": w.demo.Domain, "id": created.id(t), "trigger_id": created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string),
				"delivery_id": "msg_" + itoa(int64(made)),
			}
			w.delivery(w.demo.SiteID, ids["id"], ids["trigger_id"], ids["delivery_id"], made)
			ids["job_id"] = w.owner(202, "POST", "/"+ids["id"]+"/recover", `{"since": "2026-11-23T00:00:00Z"}`).id(t)
			w.owner(204, "DELETE", "/"+ids["id"]+"/recoveries/"+ids["job_id"], "")
			made++

			a := w.call(user.key, r, ids)
			switch {
			case user.may == nobody || user.may == nothing:
				require.Equal(t, user.may, a.status, "%s as %s: %s", operation.id, who, a.text)
				if user.may == nothing {
					require.JSONEq(t, notFound, a.text, "%s as %s", operation.id, who)
				}
			case user.may == look && operation.scope == scopeChange:
				require.Equal(t, 403, a.status, "%s as %s: %s", operation.id, who, a.text)
			case r.written.OperationID == "previewTrigger" || r.written.OperationID == "explainTrigger":
				require.Equal(t, 503, a.status, "no evaluator is there; %s as %s: %s", operation.id, who, a.text)
			default:
				require.Less(t, a.status, 300, "%s as %s: %s", operation.id, who, a.text)
			}
			if user.may != change {
				require.Equal(t, created.header.Get("ETag"), w.owner(200, "GET", "/"+ids["id"], "").header.Get("ETag"), "%s as %s changed something", operation.id, who)
			}
			w.exec(w.own, "DELETE FROM webhooks WHERE site_id = $1", w.demo.SiteID) // a site may have a hundred
		}
	}
}

// TestIDsOfAnotherSiteAreNowhere asks for each operation with ids of another site, one of them at a time.
func TestIDsOfAnotherSiteAreNowhere(t *testing.T) {
	w := newWorld(t)
	document, err := readDocument()
	require.NoError(t, err)
	things := func(key, domain string, site int64, delivery string) map[string]string {
		created := w.do(key, http.MethodPost, domain+"/webhooks", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
		require.Equal(t, 201, created.status)
		ids := map[string]string{"site_id": domain, "id": created.id(t), "trigger_id": created.json(t, "triggers").([]any)[0].(map[string]any)["id"].(string), "delivery_id": delivery}
		w.delivery(site, ids["id"], ids["trigger_id"], delivery, 1)
		job := w.do(key, http.MethodPost, domain+"/webhooks/"+ids["id"]+"/recover", `{"since": "2026-11-23T00:00:00Z"}`)
		require.Equal(t, 202, job.status)
		ids["job_id"] = job.id(t)
		return ids
	}
	mine := things(w.demo.OwnerKey, w.demo.Domain, w.demo.SiteID, "msg_mine")
	theirs := things(w.demo.OtherSiteKey, w.demo.OtherDomain, w.demo.OtherSiteID, "msg_theirs")
	before := w.do(w.demo.OtherSiteKey, http.MethodGet, theirs["site_id"]+"/webhooks/"+theirs["id"], "").text
	for _, r := range document.routes {
		for name, id := range theirs {
			if !strings.Contains(r.place[1], "{"+name+"}") && !(name == "id" && r.written.OperationID == "importNotifications") || r.written.OperationID == "listPublicKeys" {
				continue
			}
			ids := map[string]string{}
			for n, own := range mine {
				ids[n] = own
			}
			ids[name] = id
			a := w.call(w.demo.OwnerKey, r, ids)
			require.Equal(t, 404, a.status, "%s with the other's %s: %s", r.written.OperationID, name, a.text)
			require.JSONEq(t, notFound, a.text)
		}
	}
	require.Equal(t, before, w.do(w.demo.OtherSiteKey, http.MethodGet, theirs["site_id"]+"/webhooks/"+theirs["id"], "").text)
}
