// Package ui is the dashboard: a page that talks to the REST API like any other client. `make ui` builds this folder's
// TypeScript into dist/app, which is embedded here; src/router.tsx has all
// its views.
package ui

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/vearutop/statigz"
)

//go:embed all:dist
var dist embed.FS

const built = "dist/app"

// Open gives the files of the dashboard by their paths, each compressed where the client can read that. It is false
// for a program that was built without them.
func Open() (*statigz.Server, bool) {
	if _, err := fs.Stat(dist, built+"/index.html"); err != nil {
		return nil, false
	}
	return statigz.FileServer(dist, statigz.FSPrefix(built)), true
}

// Policy is the Content-Security-Policy of the page: what is not from here is neither run, shown nor asked. Nothing
// stands in the page itself, so nothing there is run either.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types default"

// Page is a request for the page, whatever view of it the address names.
func Page(r *http.Request) *http.Request {
	page := r.Clone(r.Context())
	page.URL.Path, page.URL.RawPath = "/", ""
	return page
}
