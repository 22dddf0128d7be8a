package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestADryRunAnswersAsTheRealOneWould, but for 204 where that would succeed, and leaves nothing.
func TestADryRunAnswersAsTheRealOneWould(t *testing.T) {
	w := newWorld(t)
	existing := w.owner(201, "POST", "", `{"url": "https://example.com", "triggers": [`+spike+`]}`)
	path, etag := "/"+existing.id(t), existing.header.Get("ETag")
	w.announced()
	rows := func() (counts []int) {
		for _, table := range []string{"webhooks", "triggers", "webhook_secrets", "audit", "answers"} {
			counts = append(counts, w.count(table))
		}
		return counts
	}
	before, shown := rows(), w.owner(200, "GET", path, "").text
	for _, try := range []struct {
		method, path, body, ifMatch string
		status                      int
	}{
		{"POST", "", `{"url": "https://example.com/new", "triggers": [` + spike + `]}`, "", 204},
		{"POST", "", `{"url": "http://example.com", "timeout_seconds": 99}`, "", 422},
		{"POST", "", `{"url": "https://example.com", "triggers": [{"type": "goal_achieved", "config": {"goal": {"goal_id": 999}}}]}`, "", 422},
		{"POST", "", `[]`, "", 422},
		{"PATCH", path, `{"description": "Other"}`, "", 204},
		{"PATCH", path, `{"description": "Other"}`, etag, 204},
		{"PATCH", path, `{"description": "Other"}`, `"old"`, 412},
		{"PATCH", path, `{"triggers": []}`, "", 204},
		{"PATCH", path, `{"batch": {"max_size": 1}}`, "", 422},
		{"PATCH", "/wh_none", `{}`, "", 404},
		{"PUT", path, `{"url": "https://example.com/other"}`, "", 204},
		{"PUT", path, `{}`, "", 422},
	} {
		edit := func(r *http.Request) {
			r.Header.Set("Idempotency-Key", "k")
			if try.ifMatch != "" {
				r.Header.Set("If-Match", try.ifMatch)
			}
		}
		dry := w.do(w.demo.OwnerKey, try.method, w.demo.Domain+"/webhooks"+try.path+"?dry_run=true", try.body, edit)
		require.Equal(t, try.status, dry.status, "%s %s %s: %s", try.method, try.path, try.body, dry.text)
		require.Equal(t, before, rows(), "%s %s", try.method, try.body)
		require.Empty(t, w.announced())
		if try.status != 204 { // refused alike, so the real one changes nothing either
			asked := w.do(w.demo.OwnerKey, try.method, w.demo.Domain+"/webhooks"+try.path, try.body, edit)
			require.Equal(t, []any{dry.status, dry.text}, []any{asked.status, asked.text})
		}
	}
	require.Equal(t, shown, w.owner(200, "GET", path, "").text)
	require.Equal(t, 403, w.as(w.demo.ViewerKey, 403, "POST", "?dry_run=true", `{"url": "https://example.com"}`).status)
	for query, status := range map[string]int{
		"dry_run=perhaps": 422, "dry_run=": 422, "dry_run=true&dry_run=false": 422, "dry_run=false&dry_run=true": 422,
		"dry_run=TRUE": 204, "dry_run=1": 204, "dry%5Frun=%74rue": 204,
	} {
		w.owner(status, "POST", "?"+query, `{"url": "https://example.com"}`)
		require.Equal(t, before, rows(), query)
	}
	w.owner(201, "POST", "?dry_run=false", `{"url": "https://example.com"}`)
}

func TestADryRunFindsTheSiteFull(t *testing.T) {
	w := newWorld(t)
	w.exec(w.own, "INSERT INTO webhooks (id, site_id, url) SELECT 'wh_' || n, $1, 'https://example.com' FROM generate_series(1, $2::integer) n", w.demo.SiteID, maxWebhooks)
	dry, asked := w.owner(409, "POST", "?dry_run=true", `{"url": "https://example.com"}`), w.owner(409, "POST", "", `{"url": "https://example.com"}`)
	require.Equal(t, asked.text, dry.text)
	require.Equal(t, maxWebhooks, w.count("webhooks"))
	require.Zero(t, w.count("audit"))
	w.exec(w.own, "DELETE FROM webhooks WHERE id = 'wh_1'")
	w.owner(204, "POST", "?dry_run=true", `{"url": "https://example.com"}`)
	require.Equal(t, maxWebhooks-1, w.count("webhooks"))
}
