package format

import "strings"

// teamsBytes is what Teams takes of a message that comes to a webhook, or to a workflow's: 28 KB, its
// own envelope included.
const teamsBytes = 28 << 10

type teamsMessage struct {
	Type        string            `json:"type"`
	Attachments []teamsAttachment `json:"attachments"`
}

type teamsAttachment struct {
	ContentType string    `json:"contentType"`
	ContentURL  *string   `json:"contentUrl"`
	Content     teamsCard `json:"content"`
}

type teamsCard struct {
	Schema  string         `json:"$schema"`
	Type    string         `json:"type"`
	Version string         `json:"version"`
	Layout  teamsLayout    `json:"msteams"`
	Body    []teamsElement `json:"body"`
	Actions []teamsAction  `json:"actions,omitempty"`
}

type teamsLayout struct {
	Width string `json:"width"`
}

// teamsElement is a RichTextBlock: the only element whose texts are shown as they are. A TextBlock and
// a FactSet would look for Markdown in them.
type teamsElement struct {
	Type      string     `json:"type"`
	Spacing   string     `json:"spacing,omitempty"`
	Separator bool       `json:"separator,omitempty"`
	Inlines   []teamsRun `json:"inlines"`
}

type teamsRun struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Size   string `json:"size,omitempty"`
	Weight string `json:"weight,omitempty"`
	Color  string `json:"color,omitempty"`
	Subtle bool   `json:"isSubtle,omitempty"`
}

type teamsAction struct {
	Type  string `json:"type"`
	Title string `json:"title"`
	URL   string `json:"url"`
}

// teamsEscape keeps braces apart, of which cards make dates and values.
func teamsEscape(r rune) string {
	if r == '{' || r == '$' {
		return string(r) + zeroWidth
	}
	return apart(r)
}

func teams(raw []byte) ([]byte, error) {
	notices, rest, err := readNotices(raw)
	if err != nil {
		return nil, err
	}
	// Texts get shorter until the message is small enough; their limit is in characters, the
	// message's in bytes.
	for most := 2000; ; most /= 2 {
		body, err := encode(teamsOf(notices, rest, most))
		if err != nil || len(body) <= teamsBytes {
			return body, err
		}
	}
}

func teamsOf(notices []notice, rest, most int) teamsMessage {
	card := teamsCard{
		Schema: "http://adaptivecards.io/schemas/adaptive-card.json", Type: "AdaptiveCard", Version: "1.4", Layout: teamsLayout{"Full"},
	}
	for i, n := range notices {
		card.Body = append(card.Body, n.teams(most, i > 0, len(notices) > 1)...)
	}
	if rest > 0 {
		card.Body = append(card.Body, teamsElement{Type: "RichTextBlock", Inlines: []teamsRun{{Type: "TextRun", Text: more(rest), Subtle: true}}})
	}
	if address := notices[0].link; address != "" {
		card.Actions = []teamsAction{{"Action.OpenUrl", "Open the dashboard", address}}
	}
	return teamsMessage{"message", []teamsAttachment{{ContentType: "application/vnd.microsoft.card.adaptive", Content: card}}}
}

func (n notice) teams(most int, separator, brief bool) []teamsElement {
	var elements []teamsElement
	add := func(spacing string, runs ...teamsRun) {
		var inlines []teamsRun
		for _, run := range runs {
			if run.Text != "" {
				run.Type = "TextRun"
				inlines = append(inlines, run)
			}
		}
		if len(inlines) > 0 {
			elements = append(elements, teamsElement{Type: "RichTextBlock", Spacing: spacing, Inlines: inlines})
		}
	}
	color := [...]string{alarm: "Warning", relief: "Good", news: "Accent"}[n.mood]
	add("", teamsRun{Text: clip(n.icon()+" "+n.title, min(most, 300), teamsEscape), Size: "Large", Weight: "Bolder", Color: color})
	elements[0].Separator = separator
	add("Small", teamsRun{Text: clip(n.text, most, teamsEscape)})
	if !brief {
		for i, f := range n.facts {
			spacing := "None"
			if i == 0 {
				spacing = "Medium"
			}
			add(spacing, teamsRun{Text: clip(f.name, min(most, 100), teamsEscape) + ": ", Weight: "Bolder"}, teamsRun{Text: clip(f.value, min(most, 300), teamsEscape)})
		}
		for _, l := range n.lists {
			add("Medium", teamsRun{Text: l.name, Weight: "Bolder"})
			for _, line := range l.lines {
				add("None", teamsRun{Text: "• " + clip(line, min(most, 300), teamsEscape)})
			}
		}
	}
	add("Medium", teamsRun{Text: strings.Join(n.remarks, " "), Subtle: true})
	add("Small", teamsRun{Text: clip(n.footer(), min(most, 300), teamsEscape), Subtle: true})
	return elements
}
