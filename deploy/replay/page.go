package main

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Why a request is not replayed: Plausible, which counts in the browser, would not have seen it.
const (
	notAsked   = "not a GET"
	asset      = "a file, not a page"
	feed       = "a feed"
	bot        = "a robot or a program"
	redirected = "redirected"
	failed     = "failed"
	unreadable = "an unreadable address"
)

// target is what was asked for.
type target struct {
	path  string // decoded
	query url.Values
}

// judge tells a page view from the rest. miss is a page that is not there; why is empty if the
// request is replayed.
func judge(r request) (t target, miss bool, why string) {
	if r.method != http.MethodGet {
		return t, false, notAsked
	}
	u, err := url.ParseRequestURI(r.target)
	if err != nil || !strings.HasPrefix(u.Path, "/") {
		return t, false, unreadable
	}
	t = target{path: strings.TrimRight(u.Path, " "), query: u.Query()}
	switch {
	case isAsset(t.path):
		return t, false, asset
	case isFeed(t):
		return t, false, feed
	case isBot(r.agent):
		return t, false, bot
	case r.status == http.StatusNotFound:
		return t, true, ""
	case r.status >= 300 && r.status < 400 && r.status != http.StatusNotModified:
		return t, false, redirected
	case r.status != http.StatusOK && r.status != http.StatusNotModified:
		return t, false, failed
	}
	return t, false, ""
}

// pageExtensions are those of documents that a browser shows as a page. Every other short
// extension is a file's.
var pageExtensions = map[string]bool{
	".html": true, ".htm": true, ".xhtml": true, ".shtml": true, ".php": true, ".asp": true, ".aspx": true, ".jsp": true, ".cgi": true,
	".do": true, ".md": true,
}

func isAsset(p string) bool {
	extension := strings.ToLower(path.Ext(p))
	if extension == "" || extension == "." || len(extension) > 12 || pageExtensions[extension] {
		return false
	}
	return strings.ContainsFunc(extension, func(r rune) bool { return r >= 'a' && r <= 'z' }) // /releases/v1.2 is a page
}

func isFeed(t target) bool {
	switch path.Base(strings.ToLower(t.path)) {
	case "feed", "rss", "atom":
		return true
	}
	flavour := t.query.Get("flav") + t.query.Get("format") + t.query.Get("feed")
	return strings.HasPrefix(flavour, "rss") || strings.HasPrefix(flavour, "atom")
}
