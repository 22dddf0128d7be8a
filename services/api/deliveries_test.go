package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

func positionAt(at time.Time, id string) postgres.Position { return postgres.Position{At: at, ID: id} }

// delivery stores a delivered one, as the dispatcher would, of a slot n seconds after a full hour.
func (w *world) delivery(site int64, webhook, trigger, id string, n int) {
	w.t.Helper()
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, payload, created_at, finished_at)
		VALUES ($1, date_trunc('hour', now()) + $5 * interval '1 second', $2, $3, $4, ARRAY [$1], 'visitor_spike.fired', 'delivered', 1, '{"type": "visitor_spike.fired"}', now(), now())`,
		id, site, webhook, trigger, n)
}

func TestDeliveryShowsWhatHappened(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, next_attempt_at, last_error, payload, created_at)
		VALUES ('msg_1', '2026-11-23T10:00:00Z', $1, $2, 'tr_1', '{msg_1}', 'visitor_spike.fired', 'waiting', 2, '2026-11-23T10:06:00Z', 'answered 500', $3, '2026-11-23T10:00:15Z')`,
		w.demo.SiteID, id, []byte(`{"type":"visitor_spike.fired","data":{"value":143,"note":"<ü>"}}`))
	w.exec(w.own, `INSERT INTO attempts (delivery_id, slot, number, started_at, duration_ms, request_headers, status_code, response_headers, response_body, timings, error) VALUES
		('msg_1', '2026-11-23T10:00:00Z', 2, '2026-11-23T10:00:20Z', 30.5, '{"Webhook-Id": "msg_1"}', 500, '{"Server": "x"}', 'oh no', '{"dns": 1.5}', ''),
		('msg_1', '2026-11-23T10:00:00Z', 1, '2026-11-23T10:00:15Z', 15000, '{}', NULL, NULL, '', '{}', 'timeout')`)
	const common = `"id": "msg_1", "status": "waiting", "type": "visitor_spike.fired", "trigger_id": "tr_1", "firing_ids": ["msg_1"], "attempts": 2,
		"next_attempt_at": "2026-11-23T10:06:00Z", "last_error": "answered 500", "created_at": "2026-11-23T10:00:15Z", "finished_at": null`
	require.JSONEq(t, `{"deliveries": [{`+common+`}], "meta": {"after": null, "before": null, "limit": 50}}`, w.owner(200, "GET", "/"+id+"/deliveries", "").text)
	require.JSONEq(t, `{`+common+`, "payload": {"type": "visitor_spike.fired", "data": {"value": 143, "note": "<ü>"}}, "attempt_list": [
		{"number": 1, "started_at": "2026-11-23T10:00:15Z", "duration_ms": 15000, "request_headers": {}, "status_code": null, "response_headers": null, "response_body": "", "timings": {}, "error": "timeout"},
		{"number": 2, "started_at": "2026-11-23T10:00:20Z", "duration_ms": 30.5, "request_headers": {"Webhook-Id": "msg_1"}, "status_code": 500, "response_headers": {"Server": "x"}, "response_body": "oh no", "timings": {"dns": 1.5}, "error": null}]}`,
		w.as(w.demo.ViewerKey, 200, "GET", "/"+id+"/deliveries/msg_1", "").text)
	require.JSONEq(t, notFound, w.owner(404, "GET", "/"+id+"/deliveries/msg_2", "").text)
	require.JSONEq(t, notFound, w.owner(404, "GET", "/"+id+"/deliveries/msg.1", "").text)

	other := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	require.JSONEq(t, notFound, w.owner(404, "GET", "/"+other+"/deliveries/msg_1", "").text, "of another webhook")
}

// TestFiringsThatWentTogether: until they go they wait, and then the batch is their delivery.
func TestFiringsThatWentTogether(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, payload, batch_id, finished_at) VALUES
		('msg_1', '2026-11-23T10:00:00Z', $1, $2, 'tr_1', '{msg_1}', 'visitor_spike.fired', 'batched', '{}', 'msg_batch', now()),
		('msg_2', '2026-11-23T10:00:10Z', $1, $2, 'tr_1', '{msg_2}', 'visitor_spike.fired', 'gathering', '{}', NULL, NULL),
		('msg_batch', '2026-11-23T10:00:00Z', $1, $2, NULL, '{msg_1}', 'batch', 'delivered', '{"type": "batch"}', NULL, now())`, w.demo.SiteID, id)
	listed := func(query string) (ids []string) {
		for _, d := range w.owner(200, "GET", "/"+id+"/deliveries"+query, "").json(t, "deliveries").([]any) {
			ids = append(ids, d.(map[string]any)["id"].(string)+" "+d.(map[string]any)["status"].(string))
		}
		return ids
	}
	require.Equal(t, []string{"msg_2 waiting", "msg_batch delivered"}, listed(""))
	require.Equal(t, []string{"msg_2 waiting"}, listed("?status=waiting"))
	require.Equal(t, []string{"msg_batch delivered"}, listed("?status=delivered"))
	require.Equal(t, "msg_batch", w.owner(200, "GET", "/"+id+"/deliveries/msg_1", "").json(t, "id"))
	require.Equal(t, "waiting", w.owner(200, "GET", "/"+id+"/deliveries/msg_2", "").json(t, "status"))
}

func TestHistoryIsFilteredAndPaged(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	// Three weeks, one of them without a partition; four of each slot.
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, trigger_id, firing_ids, type, status, attempts, payload, created_at, finished_at)
		SELECT 'msg_' || lpad(n::text, 2, '0'), date_trunc('week', now()) - interval '15 days' + n / 4 * interval '5 days', $1, $2, 'tr_' || n % 2, '{x}',
		       CASE WHEN n % 3 = 0 THEN 'visitor_spike.resolved' ELSE 'visitor_spike.fired' END, CASE WHEN n % 4 = 0 THEN 'dead' ELSE 'delivered' END, 1, '{}', now(), now()
		FROM generate_series(0, 15) n`, w.demo.SiteID, id)
	expect := func(keep func(int) bool) (ids []string) {
		for n := 15; n >= 0; n-- {
			if keep(n) {
				ids = append(ids, fmt.Sprintf("msg_%02d", n))
			}
		}
		return ids
	}
	var week time.Time
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT date_trunc('week', now())").Scan(&week))
	slot := func(n int) string { return week.AddDate(0, 0, -15+n/4*5).UTC().Format(time.RFC3339) }
	for query, keep := range map[string]func(int) bool{
		"":                            func(int) bool { return true },
		"status=dead":                 func(n int) bool { return n%4 == 0 },
		"trigger_id=tr_1":             func(n int) bool { return n%2 == 1 },
		"type=visitor_spike.resolved": func(n int) bool { return n%3 == 0 },
		"from=" + slot(4):             func(n int) bool { return n >= 4 },
		"to=" + slot(12):              func(n int) bool { return n < 12 },
		"trigger_id=tr_0&status=dead&from=" + slot(4) + "&to=" + slot(12): func(n int) bool { return n == 4 || n == 8 },
		"status=waiting":                       func(int) bool { return false },
		"to=2026-01-01T00%3A00%3A00%2B02%3A00": func(int) bool { return false },
	} {
		for _, limit := range []int{1, 3, 100} {
			require.Equal(t, expect(keep), w.walk("/"+id+"/deliveries?"+query, "deliveries", limit), query)
		}
	}
}
