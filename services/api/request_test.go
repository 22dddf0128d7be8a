package api

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// request asks for a delivery's request, and gives what a receiver would get.
func (w *world) request(webhook, delivery string) (http.Header, []byte, answer) {
	w.t.Helper()
	a := w.owner(200, "POST", "/"+webhook+"/deliveries/"+delivery+"/request", "")
	header := http.Header{}
	for name, value := range a.json(w.t, "headers").(map[string]any) {
		header.Set(name, value.(string))
	}
	return header, []byte(a.json(w.t, "body").(string)), a
}

// TestARequestIsShownAsItWouldBeSent: with the webhook's headers and format, and signed with all that sign now, as a
// library sees it that knows nothing of this project.
func TestARequestIsShownAsItWouldBeSent(t *testing.T) {
	w := newWorld(t)
	created := w.owner(201, "POST", "", `{"url": "https://example.com/hook?a=1", "headers": {"x-token": "mine", "Authorization": "Bearer mine"}, "format": "custom", "template": "{text: .type}"}`)
	id := created.id(t)
	w.delivery(w.demo.SiteID, id, "tr_1", "msg_1", 0)
	rotated := w.owner(200, "POST", "/"+id+"/secret/rotate", `{}`).json(t, "secret").(string)
	public := w.owner(200, "POST", "/"+id+"/secret/rotate", `{"kind": "v1a"}`).json(t, "public_key").(string)
	before := w.count("deliveries")

	header, body, a := w.request(id, "msg_1")
	require.Equal(t, []any{"POST", "https://example.com/hook?a=1"}, []any{a.json(t, "method"), a.json(t, "url")})
	require.JSONEq(t, `{"text": "visitor_spike.fired"}`, string(body))
	require.Equal(t, []string{"mine", "Bearer mine", "application/json", "msg_1"}, []string{header.Get("X-Token"), header.Get("Authorization"), header.Get("Content-Type"), header.Get("Webhook-Id")})
	require.Regexp(t, `^Plausible-Webhooks/`, header.Get("User-Agent"))
	require.Len(t, header, 7)
	for _, secret := range []string{created.json(t, "secret").(string), rotated} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, verifier.Verify(body, header))
		require.Error(t, verifier.Verify(append(body, ' '), header))
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "whpk_"))
	require.NoError(t, err)
	_, made, found := strings.Cut(header.Get("Webhook-Signature"), "v1a,")
	require.True(t, found)
	made, _, _ = strings.Cut(made, " ")
	signature, err := base64.StdEncoding.DecodeString(made)
	require.NoError(t, err)
	require.True(t, ed25519.Verify(key, []byte("msg_1."+header.Get("Webhook-Timestamp")+"."+string(body)), signature))

	require.Equal(t, before, w.count("deliveries"), "nothing is sent")
	require.Equal(t, "signRequest", w.at(w.demo.OwnerKey, "GET", "/audit", "").json(t, "changes").([]any)[0].(map[string]any)["operation"])

	w.owner(200, "POST", "/"+id+"/secret/rotate", `{"overlap_seconds": 0}`)
	header, body, _ = w.request(id, "msg_1")
	verifier, err := standardwebhooks.NewWebhook(rotated)
	require.NoError(t, err)
	require.Error(t, verifier.Verify(body, header), "a secret that has ended signs nothing")
}

func TestWhatWouldNotBeSentIsNotShown(t *testing.T) {
	w := newWorld(t)
	id := w.owner(201, "POST", "", `{"url": "https://example.com", "format": "custom", "template": "{text: .data.list[0]}"}`).id(t)
	w.delivery(w.demo.SiteID, id, "tr_1", "msg_1", 0)
	w.exec(w.own, `UPDATE deliveries SET payload = '{"data": {"list": 1}}'`)
	require.Contains(t, w.owner(409, "POST", "/"+id+"/deliveries/msg_1/request", "").text, "the message cannot be made")
	w.exec(w.own, "UPDATE webhooks SET template = 'nonsense('")
	require.Contains(t, w.owner(409, "POST", "/"+id+"/deliveries/msg_1/request", "").text, "as the template")
	w.exec(w.own, "UPDATE webhooks SET url = 'https://127.0.0.1/'")
	require.Contains(t, w.owner(409, "POST", "/"+id+"/deliveries/msg_1/request", "").text, "the webhook's URL is refused")
	require.JSONEq(t, notFound, w.owner(404, "POST", "/"+id+"/deliveries/msg_2/request", "").text)
}
