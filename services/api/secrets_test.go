package api

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

// opened are the texts of what signs a webhook's messages now, the newest first.
func (w *world) opened(id string) (texts []string) {
	w.t.Helper()
	rows, err := w.own.Query(w.t.Context(), "SELECT sealed FROM webhook_secrets WHERE webhook_id = $1 AND (expires_at IS NULL OR expires_at > now()) ORDER BY id DESC", id)
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var sealed []byte
		require.NoError(w.t, rows.Scan(&sealed))
		text, err := w.api.vault.Open(sealed, id)
		require.NoError(w.t, err)
		texts = append(texts, text)
	}
	return texts
}

func TestRotatingASecret(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com"}`)
	id, first := created.id(t), created.json(t, "secret").(string)
	w.announced()

	rotated := w.owner(200, "POST", "/"+id+"/secret/rotate", "")
	second := rotated.json(t, "secret").(string)
	_, err := signature.ParseSecret(second)
	require.NoError(t, err)
	assert.Equal(t, []string{second, first}, w.opened(id), "both sign for a day")
	until, err := time.Parse(time.RFC3339, rotated.json(t, "old_expire_at").(string))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)
	assert.Equal(t, []string{"changed.webhook." + id}, w.announced())
	assert.NotContains(t, w.owner(200, "GET", "/"+id, "").text, "whsec_")
	assert.NotContains(t, w.log.String(), second)

	third := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"overlap_seconds": 604800}`).json(t, "secret").(string)
	fourth := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"kind": "v1", "overlap_seconds": 3600}`).json(t, "secret").(string)
	assert.Equal(t, []string{fourth, third, second}, w.opened(id), "three at most")
	fifth := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"overlap_seconds": 0}`).json(t, "secret").(string)
	assert.Equal(t, []string{fifth}, w.opened(id), "one that leaked ends at once")

	w.as(w.demo.ViewerKey, 403, "POST", "/"+id+"/secret/rotate", "")
	assert.JSONEq(t, notFound, w.owner(404, "POST", "/wh_other/secret/rotate", "").text)
	refused := w.owner(422, "POST", "/"+id+"/secret/rotate", `{"kind": "v2", "overlap_seconds": -1, "x": 1}`)
	for _, field := range []string{"kind", "overlap_seconds", "x"} {
		assert.Contains(t, refused.text, `"field":"`+field+`"`)
	}
}

// TestKeysThatAnybodyMayKnow: a pair of keys signs beside the secret, and its public half needs no API key.
func TestKeysThatAnybodyMayKnow(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com"}`)
	id := created.id(t)
	public := func() (keys []string) {
		a := w.do("", "GET", "", "", func(r *http.Request) { r.URL.Path = "/api/public-keys/" + id })
		if a.status == 404 {
			return nil
		}
		require.Equal(t, 200, a.status, a.text)
		for _, k := range a.json(t, "public_keys").([]any) {
			keys = append(keys, k.(map[string]any)["public_key"].(string))
		}
		return keys
	}
	require.Empty(t, public())
	a := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"kind": "v1a"}`)
	first := a.json(t, "public_key").(string)
	assert.Equal(t, "/api/public-keys/"+id, a.json(t, "public_keys_url"))
	assert.NotContains(t, a.text, "whsk_")
	require.Equal(t, []string{first}, public())
	opened := w.opened(id)
	require.Len(t, opened, 2, "the secret signs too")
	key, err := signature.ParseKey(opened[0])
	require.NoError(t, err)
	assert.Equal(t, first, key.Public())
	assert.Equal(t, created.json(t, "secret"), opened[1])

	second := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"kind": "v1a"}`).json(t, "public_key").(string)
	assert.Equal(t, []string{second, first}, public())
	w.announced()
	w.owner(204, "DELETE", "/"+id+"/secret/v1a", "")
	assert.Equal(t, []string{"changed.webhook." + id}, w.announced())
	assert.Empty(t, public())
	assert.Len(t, w.opened(id), 1)
	assert.NotContains(t, w.log.String(), "whsk_")
	w.as(w.demo.ViewerKey, 403, "DELETE", "/"+id+"/secret/v1a", "")
}

func TestAKeyOfTheVaultIsExchanged(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.owner(200, "POST", "/"+id+"/secret/rotate", `{"kind": "v1a"}`)
	lost := w.owner(201, "POST", "", `{"url": "https://example.com"}`).id(t)
	w.exec(w.own, "UPDATE webhook_secrets SET sealed = 'of a lost key' WHERE webhook_id = $1", lost)
	old := w.api.vault
	first := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("n", 32)))
	both := first + "," + base64.StdEncoding.EncodeToString(make([]byte, 32))
	require.NoError(t, w.api.vault.UnmarshalText([]byte(both)))
	for range 2 {
		require.NoError(t, w.api.sealAnew(t.Context()))
	}
	require.Equal(t, 1, strings.Count(w.log.String(), `"secrets":2`), "once, and then there is nothing to do")
	require.Contains(t, w.log.String(), `"webhook_id":"`+lost+`"`)

	var alone vault.Vault
	require.NoError(t, alone.UnmarshalText([]byte(first)))
	rows, err := w.own.Query(t.Context(), "SELECT sealed FROM webhook_secrets WHERE webhook_id = $1", id)
	require.NoError(t, err)
	sealed, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	require.NoError(t, err)
	require.Len(t, sealed, 2)
	for _, s := range sealed {
		_, err := alone.Open(s, id)
		require.NoError(t, err)
		_, err = old.Open(s, id)
		require.Error(t, err)
	}
}
