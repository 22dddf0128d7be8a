package main

import (
	"net/url"
	"strings"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// origin says where a visit came from. Links within the site, whose own host is given, are none.
func origin(r request, t target, ownHost string) visit.Origin {
	o := visit.Origin{
		UTMMedium: t.query.Get("utm_medium"), UTMSource: t.query.Get("utm_source"), UTMCampaign: t.query.Get("utm_campaign"),
	}
	if host, page := referrerOf(r); host != "" && host != ownHost {
		o.Referrer, o.Source = host+page, sourceName(host)
	}
	for _, tag := range []string{"utm_source", "source", "ref"} {
		if value := t.query.Get(tag); value != "" {
			o.Source = value
			break
		}
	}
	return o
}

// referrerOf is the host, without www., and the path of the referrer.
func referrerOf(r request) (host, page string) {
	u, err := url.Parse(r.referrer)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", ""
	}
	return strings.TrimPrefix(strings.ToLower(u.Hostname()), "www."), u.EscapedPath()
}

// ownHost is the site's own: the host whose pages ask for its files. It is empty if no file of
// the log was asked for by a page.
func ownHost(requests []request) string {
	counts := map[string]int{}
	best := ""
	for _, r := range requests {
		if _, _, why := judge(r); why != asset {
			continue
		}
		if host, _ := referrerOf(r); host != "" {
			counts[host]++
			if counts[host] > counts[best] {
				best = host
			}
		}
	}
	return best
}

// sourceName is what Plausible calls a host, for those that a log is likely to have.
func sourceName(host string) string {
	labels := strings.Split(host, ".")
	for _, label := range labels[:len(labels)-1] {
		if name, known := engines[label]; known {
			return name
		}
	}
	if name, known := sites[host]; known {
		return name
	}
	return host
}

// engines have a host in many countries.
var engines = map[string]string{
	"google": "Google", "bing": "Bing", "yahoo": "Yahoo!", "yandex": "Yandex", "baidu": "Baidu", "duckduckgo": "DuckDuckGo", "ecosia": "Ecosia",
}

var sites = map[string]string{
	"news.ycombinator.com": "Hacker News", "t.co": "Twitter", "twitter.com": "Twitter", "x.com": "Twitter", "reddit.com": "Reddit", "facebook.com": "Facebook",
	"m.facebook.com": "Facebook", "l.facebook.com": "Facebook", "github.com": "GitHub", "linkedin.com": "LinkedIn", "lnkd.in": "LinkedIn",
	"stackoverflow.com": "Stack Overflow", "en.wikipedia.org": "Wikipedia",
}
