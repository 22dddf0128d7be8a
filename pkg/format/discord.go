package format

import (
	"strings"
	"time"
)

// Discord's limits, in characters: docs.discord.com, "Embed limits" and "Execute webhook".
const (
	discordTitle       = 256
	discordDescription = 4096
	discordFields      = 25
	discordName        = 256
	discordValue       = 1024
	discordFooter      = 2048
	discordTotal       = 6000 // of all embeds of a message
	discordEmbeds      = 10
)

type discordMessage struct {
	Embeds          []discordEmbed `json:"embeds"`
	AllowedMentions struct {
		Parse []string `json:"parse"` // empty: nobody is called
	} `json:"allowed_mentions"`
}

type discordEmbed struct {
	Title       string         `json:"title"`
	URL         string         `json:"url,omitempty"`
	Description string         `json:"description,omitempty"`
	Color       int            `json:"color"`
	Fields      []discordField `json:"fields,omitempty"`
	Footer      *discordText   `json:"footer,omitempty"`
	Timestamp   *time.Time     `json:"timestamp,omitempty"`
}

type discordField struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Inline bool   `json:"inline,omitempty"`
}

type discordText struct {
	Text string `json:"text"`
}

// discordEscape puts a backslash before all that Discord's Markdown looks for: links as well, which
// begin with https:, and names of emojis, people, channels and times.
func discordEscape(r rune) string {
	if strings.ContainsRune("\\`*_~|<>[](){}#+-=!:", r) {
		return "\\" + string(r)
	}
	return apart(r)
}

func discord(raw []byte) ([]byte, error) {
	notices, rest, err := readNotices(raw)
	if err != nil {
		return nil, err
	}
	var m discordMessage
	m.AllowedMentions.Parse = []string{}
	share := discordTotal / len(notices) // of an embed, so that the last one is not the one that is cut
	for i, n := range notices {
		if last := i == len(notices)-1; last && rest > 0 {
			n.remarks = append(n.remarks, more(rest))
		}
		m.Embeds = append(m.Embeds, n.discord(share))
	}
	return encode(m)
}

func (n notice) discord(share int) discordEmbed {
	e := discordEmbed{URL: n.link, Color: [...]int{alarm: 0xE8912D, relief: 0x2EB67D, news: 0x5850EC}[n.mood]}
	// take clips a text to its limit and to what is left of the share.
	take := func(text string, most int, as escape) string {
		taken := clip(text, min(most, share), as)
		share -= units(taken)
		return taken
	}
	e.Title = take(n.icon()+" "+n.title, discordTitle, discordEscape)
	if n.site != "" {
		e.Footer = &discordText{take(n.site, discordFooter/8, apart)}
	}
	if !n.at.IsZero() {
		at := n.at.UTC()
		e.Timestamp = &at
	}
	e.Description = take(strings.Join(withoutEmpty(append([]string{n.text}, n.remarks...)), " "), min(discordDescription, share/2), discordEscape)
	add := func(name, value string, inline bool) {
		if share -= units(name) + units(value); share >= 0 && name != "" && value != "" && len(e.Fields) < discordFields {
			e.Fields = append(e.Fields, discordField{name, value, inline})
		}
	}
	for _, f := range n.facts {
		add(clip(f.name, discordName, discordEscape), clip(f.value, discordValue/4, discordEscape), true)
	}
	for _, l := range n.lists {
		var lines []string
		for _, line := range l.lines {
			lines = append(lines, "• "+clip(line, discordValue/(shownLines+1)-3, discordEscape))
		}
		add(l.name, strings.Join(lines, "\n"), false)
	}
	return e
}
