package format

import "strings"

// Slack's limits, in characters and blocks of a message:
// docs.slack.dev/reference/block-kit/blocks and /messaging/formatting-message-text.
const (
	slackHeader   = 150
	slackText     = 3000 // of a text object
	slackField    = 2000
	slackFields   = 10
	slackElements = 10 // of a context
	slackBlocks   = 50
	slackFallback = 4000
)

type slackMessage struct {
	Text string `json:"text"` // of notifications, and for screen readers
	// The text is no markup, and nothing in it is made a link, a mention or a picture.
	Mrkdwn      bool         `json:"mrkdwn"`
	Parse       string       `json:"parse"`
	LinkNames   bool         `json:"link_names"`
	UnfurlLinks bool         `json:"unfurl_links"`
	UnfurlMedia bool         `json:"unfurl_media"`
	Blocks      []slackBlock `json:"blocks"`
}

type slackBlock struct {
	Type     string        `json:"type"`
	Text     *slackObject  `json:"text,omitempty"`
	Fields   []slackObject `json:"fields,omitempty"`
	Elements []slackObject `json:"elements,omitempty"`
}

type slackObject struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim,omitempty"`
}

// slackPlain is a text in which Slack looks for nothing. All texts but our own link are such.
func slackPlain(text string) slackObject { return slackObject{Type: "plain_text", Text: text} }

// slackEscape is for the fallback, in which older clients look for <…>.
func slackEscape(r rune) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	}
	return apart(r)
}

func slack(raw []byte) ([]byte, error) {
	notices, rest, err := readNotices(raw)
	if err != nil {
		return nil, err
	}
	var m slackMessage
	m.Parse = "none"
	var fallback []string
	for _, n := range notices {
		fallback = append(fallback, clip(n.title+" · "+n.site+": "+n.text, slackFallback/(shownNotices+1), slackEscape))
		m.Blocks = append(m.Blocks, n.slack(len(notices) > 1)...)
	}
	if rest > 0 {
		fallback = append(fallback, more(rest))
		m.Blocks = append(m.Blocks, slackBlock{Type: "context", Elements: []slackObject{slackPlain(more(rest))}})
	}
	m.Text = strings.Join(fallback, "\n")
	return encode(m)
}

// slack makes the blocks of a notice: at most eight, and four if it is one of many.
func (n notice) slack(brief bool) []slackBlock {
	section := func(text string) slackBlock {
		object := slackPlain(text)
		return slackBlock{Type: "section", Text: &object}
	}
	title := slackPlain(clip(n.icon()+" "+n.title, slackHeader, apart))
	blocks := []slackBlock{{Type: "header", Text: &title}}
	if text := clip(n.text, slackText, apart); text != "" {
		blocks = append(blocks, section(text))
	}
	if !brief {
		var fields []slackObject
		for _, f := range n.facts[:min(len(n.facts), slackFields)] {
			fields = append(fields, slackPlain(clip(f.name, slackHeader, apart)+"\n"+clip(f.value, slackField/4, apart)))
		}
		if len(fields) > 0 {
			blocks = append(blocks, slackBlock{Type: "section", Fields: fields})
		}
		for _, l := range n.lists {
			lines := []string{l.name}
			for _, line := range l.lines {
				lines = append(lines, "• "+clip(line, slackText/(2*shownLines), apart))
			}
			blocks = append(blocks, section(strings.Join(lines, "\n")))
		}
	}
	var foot []slackObject
	if len(n.remarks) > 0 {
		foot = append(foot, slackPlain(strings.Join(n.remarks, " ")))
	}
	if text := clip(n.footer(), slackField, apart); text != "" {
		foot = append(foot, slackPlain(text))
	}
	if n.link != "" {
		address := strings.ReplaceAll(n.link, "&", "&amp;")
		foot = append(foot, slackObject{Type: "mrkdwn", Text: "<" + address + "|Open the dashboard>", Verbatim: true})
	}
	if len(foot) > 0 {
		blocks = append(blocks, slackBlock{Type: "context", Elements: foot})
	}
	return blocks
}

// icon says at a glance what kind of notice it is.
func (n notice) icon() string {
	return [...]string{alarm: "🔔", relief: "✅", news: "ℹ️"}[n.mood]
}
