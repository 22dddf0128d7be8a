package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// post sends a message as the dispatcher does, signed with our own code: the receiver checks it
// with the library.
func post(t *testing.T, address, path, body string, signers ...signature.Signer) (status int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+path, strings.NewReader(body))
	require.NoError(t, err)
	if len(signers) > 0 {
		now := time.Now()
		request.Header.Set(signature.HeaderID, "msg_1")
		request.Header.Set(signature.HeaderTimestamp, jsonNumber(now.Unix()))
		request.Header.Set(signature.HeaderSignature, signature.Sign("msg_1", now, []byte(body), signers...))
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

func jsonNumber(n int64) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestReceiverBelievesOnlyWhatIsSigned(t *testing.T) {
	var printed bytes.Buffer
	h := newHome(t)
	r, err := newReceiver(h, &terminal{out: &printed})
	require.NoError(t, err)
	server := httptest.NewServer(r.routes())
	defer server.Close()
	mine, other := signature.NewSecret(), signature.NewSecret()
	require.NoError(t, r.learn(demoPath, mine.Reveal(), "wh_1"))

	const body = `{"type":"goal_achieved.fired","timestamp":"2026-11-23T15:04:10Z","data":{"id":"msg_1","site":{"id":1,"domain":"demo.example.com"},
		"trigger":{"name":"Every sign-up"},"value":2,"threshold":1,"conversions":[{"page":"/signup","source":"Google","country":"EE","props":{"method":"email"}}]}}`
	require.Equal(t, http.StatusOK, post(t, server.URL, demoPath, body, mine))
	require.Equal(t, http.StatusOK, post(t, server.URL, demoPath, body, other, mine), "while a secret rotates two sign")
	require.Equal(t, http.StatusUnauthorized, post(t, server.URL, demoPath, body, other))
	require.Equal(t, http.StatusUnauthorized, post(t, server.URL, demoPath, body))
	require.Equal(t, http.StatusOK, post(t, server.URL, "/hooks/mine", "hello", other))

	lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
	require.Len(t, lines, 5)
	require.Contains(t, lines[0], "✔ verified  goal_achieved.fired  demo.example.com  “Every sign-up”  2/1  [/signup, Google, EE, method=email]  msg_1")
	require.Contains(t, lines[2], "✘ refused")
	require.Contains(t, lines[4], "not verified: no secret known for this path")

	// Once it is told the secret of an own webhook, it verifies that too, also after a restart.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/hooks/mine", strings.NewReader(other.Reveal()))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusNoContent, response.StatusCode)
	again, err := newReceiver(h, &terminal{out: &printed})
	require.NoError(t, err)
	require.Equal(t, other.Reveal(), again.secret("/hooks/mine"))
	require.Equal(t, mine.Reveal(), again.secret(demoPath))
	require.Equal(t, "wh_1", again.demoWebhook())
	require.Equal(t, http.StatusUnauthorized, post(t, server.URL, "/hooks/mine", body, mine))

	list, err := http.Get(server.URL + "/messages")
	require.NoError(t, err)
	defer list.Body.Close()
	var got struct{ Messages []arrival }
	require.NoError(t, json.NewDecoder(list.Body).Decode(&got))
	require.Len(t, got.Messages, 6)
	require.True(t, got.Messages[5].Verified)
	require.JSONEq(t, body, string(got.Messages[5].Body))
}

func TestEveryTypesMessageIsOneLine(t *testing.T) {
	var printed bytes.Buffer
	out := &terminal{out: &printed}
	for _, typ := range trigger.Types() {
		body, err := json.Marshal(trigger.Example(typ))
		require.NoError(t, err)
		out.arrival(arrival{Path: demoPath, Verified: true, Body: body})
	}
	lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
	require.Len(t, lines, len(trigger.Types()))
	for _, want := range []string{
		"“Signup: every conversion”  2 new conversions  [/signup, Google, EE, method=email]  [/signup, newsletter, DE, method=github]",
		"“Visitor spike: 100 in 5m”  143 visitors in 5 minutes reached the threshold of 100  97 from Hacker News",
		"“Page view milestone”  The 50000th page view was counted  the next is 60000  6 from Google",
		"“New source with 5 visitors”  Lobsters was never seen before and brought 12 visitors in 30 minutes",
		"“Pages not found: 10 in 5m”  /old-docs/setup was not found 23 times in 5 minutes, the threshold is 10",
	} {
		require.True(t, slices.ContainsFunc(lines, func(line string) bool { return strings.HasSuffix(line, want) }), "%s\nis not in\n%s", want, printed.String())
	}
}

func TestStrangersCannotSteerTheTerminal(t *testing.T) {
	var printed bytes.Buffer
	out := &terminal{out: &printed}
	out.arrival(arrival{Path: demoPath, Verified: true, Body: json.RawMessage(
		`{"type":"x.fired","data":{"trigger":{"name":"a\u001b[2Jb\nc"},"explanation":"d\u001b[2Je\nf","conversions":[{"page":"/\u0007"}]}}`)})
	require.NotContains(t, printed.String(), "\x1b")
	require.Equal(t, 1, strings.Count(printed.String(), "\n"))
}
