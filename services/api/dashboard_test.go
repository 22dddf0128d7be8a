package api

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/ui"
)

// get asks for a path of the server as a browser does.
func (w *world) get(path string, header ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.server.URL+path, nil)
	require.NoError(w.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := w.server.Client().Do(r)
	require.NoError(w.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	return response, string(text)
}

// TestTheDashboardIsServed: `make test` builds it before. Without it, the server says how it is built.
func TestTheDashboardIsServed(t *testing.T) {
	w := newWorld(t)
	if _, built := ui.Open(); !built {
		response, text := w.get("/")
		require.Equal(t, 404, response.StatusCode)
		require.Contains(t, text, `"make ui" builds it`)
		require.Contains(t, w.log.String(), "built without the dashboard")
		return
	}
	_, page := w.get("/")
	require.Contains(t, page, `<div id="root">`)
	for _, path := range []string{"/", "/sites/demo.example.com", "/sites/example.com%2Fblog/webhooks/wh_1", "/sites/x/../../etc/passwd"} {
		response, text := w.get(path)
		require.Equal(t, []any{200, "text/html; charset=utf-8", page}, []any{response.StatusCode, response.Header.Get("Content-Type"), text}, path)
		policy := response.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, policy, "http")
		require.Equal(t, "no-cache", response.Header.Get("Cache-Control"))
	}
	require.NotRegexp(t, `(?i)<script(>| [^>]*>[^<])|<style| style=| on[a-z]+=`, page, "nothing stands in the page that is run")

	files := regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(page, -1)
	require.GreaterOrEqual(t, len(files), 3)
	for _, file := range files {
		plain, text := w.get(file[1], "Accept-Encoding", "identity")
		require.Equal(t, 200, plain.StatusCode, file[1])
		require.Contains(t, plain.Header.Get("Cache-Control"), "immutable")
		require.Empty(t, plain.Header.Get("Content-Encoding"))
		if strings.HasSuffix(file[1], ".svg") {
			continue
		}
		small, _ := w.get(file[1], "Accept-Encoding", "gzip")
		require.Equal(t, "gzip", small.Header.Get("Content-Encoding"))
		require.Less(t, small.ContentLength, int64(max(len(text)/2, 1024)))
	}
	for _, path := range []string{"/assets/nothing.js", "/assets/", "/assets", "/index.html", "/dist/app/index.html", "/assets/../ui.go"} {
		response, _ := w.get(path)
		require.NotEqual(t, 200, response.StatusCode, path)
	}
}
