package main

import (
	"strings"

	"github.com/mileusna/useragent"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/visit"
)

// isBot tells who would not have run Plausible's script: what says so itself, and what is no
// browser on any system that we know of.
func isBot(agent string) bool {
	parsed := useragent.Parse(agent)
	lower := strings.ToLower(agent)
	for _, word := range []string{"bot", "spider", "crawl", "preview", "feed", "archiver", "slurp"} {
		if strings.Contains(lower, word) {
			return true
		}
	}
	return parsed.Bot || parsed.OS == "" || !strings.HasPrefix(lower, "mozilla/") && !strings.HasPrefix(lower, "opera/")
}

// device is what the agent says, in Plausible's words.
func device(agent string) visit.Visitor {
	parsed := useragent.Parse(agent)
	v := visit.Visitor{
		OS: parsed.OS, OSVersion: parsed.OSVersionNoShort(),
		Browser: parsed.Name, BrowserVersion: parsed.VersionNoShort(),
	}
	switch parsed.OS {
	case useragent.MacOS:
		v.OS = "Mac"
	case useragent.Linux:
		v.OS = "GNU/Linux"
	case useragent.ChromeOS:
		v.OS = "Chrome OS"
	}
	switch parsed.Name {
	case useragent.Edge:
		v.Browser = "Microsoft Edge"
	case "Trident":
		v.Browser = useragent.InternetExplorer
	}
	switch {
	case parsed.Tablet:
		v.Device = "Tablet"
	case parsed.Mobile:
		v.Device = "Mobile"
	case parsed.Desktop:
		v.Device = "Desktop"
	}
	return v
}
