package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// TestActivityIsCounted holds the counts of random histories against what a plain loop over the rows says.
func TestActivityIsCounted(t *testing.T) {
	w := newWorld(t)
	busy, quiet := w.owner(201, "POST", "", `{"url": "https://example.com/busy"}`).id(t), w.owner(201, "POST", "", `{"url": "https://example.com/quiet"}`).id(t)
	var now time.Time
	require.NoError(t, w.own.QueryRow(t.Context(), "SELECT now()").Scan(&now))
	first := now.UTC().Truncate(time.Hour).Add(-23 * time.Hour)

	type hour struct{ delivered, failed int }
	want := make([]hour, 24)
	total := map[string]int{}
	statuses := []string{"delivered", "dead", "waiting", "retrying", "cancelled", "batched", "gathering"}
	for n := range 700 {
		slot := first.Add(time.Duration(n-100) * 17 * time.Minute).Add(-time.Duration(n%7) * time.Second)
		if slot.After(now) {
			break
		}
		status := statuses[n*n%len(statuses)]
		stored, attempts, finished := status, 1, "now()"
		switch status {
		case "retrying":
			stored, attempts, finished = "waiting", 2, "NULL"
		case "waiting", "gathering":
			attempts, finished = 0, "NULL"
		}
		w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
			VALUES ($1, $2, $3, $4, ARRAY [$1], 'visitor_spike.fired', $5, $6, '{}', `+finished+`)`, fmt.Sprintf("msg_%03d", n), slot, w.demo.SiteID, busy, stored, attempts)
		if slot.Before(first) {
			continue
		}
		of := &want[slot.Sub(first)/time.Hour]
		total[status]++
		switch status {
		case "delivered":
			of.delivered++
		case "dead", "retrying":
			of.failed++
		}
	}
	w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
		VALUES ('msg_week', $1, $2, $3, '{msg_week}', 'webhook.ping', 'cancelled', 0, '{}', now()), ('msg_old', $4, $2, $3, '{msg_old}', 'webhook.ping', 'delivered', 1, '{}', now())`,
		now.Add(-6*24*time.Hour), w.demo.SiteID, quiet, now.Add(-8*24*time.Hour))

	a := w.as(w.demo.ViewerKey, 200, "GET", "/activity", "")
	require.Len(t, a.json(t, "activity"), 2)
	got := a.json(t, "activity").([]any)[1].(map[string]any)
	require.Equal(t, busy, got["webhook_id"], "the newest webhook is first")
	require.Equal(t, []any{float64(total["delivered"]), float64(total["dead"]), float64(total["retrying"]), false}, []any{got["delivered"], got["dead"], got["retrying"], got["truncated"]})
	for i, h := range got["hours"].([]any) {
		require.Equal(t, map[string]any{
			"from": first.Add(time.Duration(i) * time.Hour).Format(time.RFC3339), "delivered": float64(want[i].delivered), "failed": float64(want[i].failed),
		}, h)
	}
	require.Equal(t, w.owner(200, "GET", "/"+busy+"/deliveries?limit=1", "").json(t, "deliveries").([]any)[0].(map[string]any)["id"], got["last_delivery"].(map[string]any)["id"])

	of := a.json(t, "activity").([]any)[0].(map[string]any)
	require.Equal(t, []any{quiet, 0.0, "msg_week", "cancelled"}, []any{of["webhook_id"], of["delivered"], of["last_delivery"].(map[string]any)["id"], of["last_delivery"].(map[string]any)["status"]})
	w.exec(w.own, "DELETE FROM deliveries WHERE id = 'msg_week'")
	require.Nil(t, w.owner(200, "GET", "/activity", "").json(t, "activity").([]any)[0].(map[string]any)["last_delivery"], "older than a week")
}

// TestActivityOfVeryManyIsCut, where there are more than are looked at, and not where there are just as many.
func TestActivityOfVeryManyIsCut(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	add := func(status, finished string, attempts, from, to int) {
		w.exec(w.own, `INSERT INTO deliveries (id, slot, site_id, webhook_id, firing_ids, type, status, attempts, payload, finished_at)
			SELECT 'msg_' || $3 || n, now() - n * interval '1 second', $1, $2, ARRAY ['msg_' || $3 || n], 'visitor_spike.fired', $3, $4, '{}', `+finished+` FROM generate_series($5::integer, $6::integer) n`,
			w.demo.SiteID, id, status, attempts, from, to)
	}
	shown := func(field string) []any {
		got := w.owner(200, "GET", "/activity", "").json(t, "activity").([]any)[0].(map[string]any)
		return []any{got[field], got["truncated"]}
	}
	const most = postgres.MostCounted
	add("delivered", "now()", 1, 1, most)
	require.Equal(t, []any{float64(most), false}, shown("delivered"))
	add("waiting", "NULL", 2, 1, most/2)
	add("waiting", "NULL", 0, most/2+1, most)
	require.Equal(t, []any{float64(most / 2), false}, shown("retrying"), "all outcomes have room of their own")
	add("waiting", "NULL", 0, most+1, most+1)
	require.Equal(t, []any{float64(most / 2), true}, shown("retrying"))
	add("delivered", "now()", 1, most+1, most+1)
	require.Equal(t, []any{float64(most), true}, shown("delivered"))
}
