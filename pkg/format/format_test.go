package format

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

var update = flag.Bool("update", false, "write the golden files anew")

var services = []Format{Slack, Discord, Teams}

var slot = time.Date(2026, 11, 23, 15, 4, 10, 0, time.UTC)

// messages are one of each kind.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string]any{}
	for _, typ := range trigger.Types() {
		all[string(typ)] = trigger.Example(typ)
	}
	resolved := trigger.Example(trigger.VisitorSpikeType)
	resolved.Type = "visitor_spike.resolved"
	resolved.Data.Episode = &trigger.EndedEpisode{From: slot.Add(-time.Hour), To: slot.Add(-time.Minute), Peak: 211.5, PeakAt: slot.Add(-30 * time.Minute)}
	all["resolved"] = resolved

	missed := trigger.Example(trigger.NotFoundBurstType)
	missed.Data.Missed, missed.Data.Episode = true, &trigger.EndedEpisode{From: slot.Add(-26 * time.Hour), To: slot.Add(-25 * time.Hour), Peak: 40, PeakAt: slot.Add(-26 * time.Hour)}
	missed.Data.Group.More = 3
	all["missed"] = missed

	late := trigger.Example(trigger.MetricThresholdType)
	late.Data.Late, late.Data.Flapping, late.Data.Suppressed, late.Data.Renotified = true, true, 2, 3
	all["late"] = late

	all["ping"] = map[string]any{"type": "webhook.ping", "timestamp": slot, "data": map[string]any{"site": map[string]any{"id": 1, "domain": "demo.example.com"}, "webhook_id": "wh_1"}}
	all["failing"] = map[string]any{"type": "webhook.failing", "timestamp": slot, "data": map[string]any{"explanation": "The webhook wh_1 fails since 4 days."}}
	all["future"] = map[string]any{"type": "moon_phase.fired", "timestamp": slot, "data": map[string]any{"explanation": "The moon is full.", "value": "full", "window": 7, "context": []int{1}}}
	all["without_context"] = map[string]any{"type": "visitor_spike.fired", "timestamp": slot, "data": map[string]any{"trigger": map[string]any{"name": "Spike"}, "value": 1, "context": nil}}

	var batch []any
	for i := range 14 {
		batch = append(batch, trigger.Example(trigger.Types()[i%len(trigger.Types())]))
	}
	all["batch"] = map[string]any{"type": "batch", "timestamp": slot, "data": map[string]any{"messages": batch}}
	all["empty_batch"] = map[string]any{"type": "batch", "timestamp": slot, "data": map[string]any{"messages": []any{}}}

	hostile := trigger.Example(trigger.NotFoundBurstType)
	hostile.Data.Trigger.Name = "*404* <!channel> @everyone"
	hostile.Data.Explanation = "/[click](https://evil.example) had <https://evil.example|free> **coins** \u202egnp.exe @here"
	hostile.Data.Group.Value = "<@U123> `rm` ||spoiler|| {{DATE(2026-01-01T00:00:00Z)}} <at>boss</at>"
	hostile.Data.Context.TopPages = []trigger.Ranked{{Name: "# _x_\n> ~y~ :smile: &lt;!here&gt;", Visitors: 1}}
	hostile.Data.Context.TopSources = []trigger.Ranked{{Name: strings.Repeat("long & ", 3000), Visitors: 9}}
	hostile.Data.DashboardURL = "javascript:alert(1)"
	all["hostile"] = hostile

	encoded := make(map[string][]byte, len(all))
	for kind, m := range all {
		raw, err := json.Marshal(m)
		require.NoError(t, err)
		encoded[kind] = raw
	}
	return encoded
}

func renderer(t checker, f Format, template string) Renderer {
	t.Helper()
	r, err := Compile(f, template)
	require.NoError(t, err)
	return r
}

// TestGolden: what each service gets for each kind of message. With -update they are written anew.
func TestGolden(t *testing.T) {
	all := messages(t)
	for _, f := range services {
		r := renderer(t, f, "")
		for kind, raw := range all {
			t.Run(string(f)+"/"+kind, func(t *testing.T) {
				body, err := r.Render(t.Context(), raw)
				require.NoError(t, err)
				checkLimits(t, f, body)
				var indented bytes.Buffer
				require.NoError(t, json.Indent(&indented, body, "", "  "))
				indented.WriteByte('\n')
				path := filepath.Join("testdata", string(f), kind+".json")
				if *update {
					require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
					require.NoError(t, os.WriteFile(path, indented.Bytes(), 0o600))
				}
				golden, err := os.ReadFile(path)
				require.NoError(t, err)
				assert.Equal(t, string(golden), indented.String())
			})
		}
		files, err := filepath.Glob(filepath.Join("testdata", string(f), "*.json"))
		require.NoError(t, err)
		require.Len(t, files, len(all), "a golden file without its message")
	}
}

func TestStandardIsTheMessageItself(t *testing.T) {
	r := renderer(t, Standard, "")
	for _, raw := range [][]byte{[]byte(`{"a":1}`), []byte("  not\xff even JSON"), {}} {
		body, err := r.Render(t.Context(), raw)
		require.NoError(t, err)
		require.Equal(t, raw, body)
	}
}

func TestUnknownFormatsAreRefused(t *testing.T) {
	_, err := Compile("morse", "")
	require.EqualError(t, err, `the format "morse" is unknown`)
	for _, f := range services {
		_, err := renderer(t, f, "").Render(t.Context(), []byte(`{"type":`))
		require.EqualError(t, err, "the message is not JSON", f)
	}
}

// TestStrangersTextsStayTexts: whatever pages, sources and names are called, and however long.
func TestStrangersTextsStayTexts(t *testing.T) {
	hostile := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{
			"<!channel>", "<!here|x>", "<@U1>", "<#C1>", "<https://evil.example|x>", "@everyone", "@Here", "<@&5>", "https://evil.example", "[a](https://b.example)",
			"**b**", "_i_", "~s~", "`c`", "||x||", "# h", "> q", "<at>x</at>", "{{DATE(2026-01-01T00:00:00Z)}}", "${x}", "\\", "\\[", ":smile:", "<t:1>", "\u202e", "\x00", "\xff", "@\u202eeveryone",
		}),
		rapid.Map(rapid.SampledFrom([]string{"@everyone ", "<!channel>", "\\", "😀", "<", "&", "é"}), func(s string) string { return strings.Repeat(s, 5000/len(s)) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		m := trigger.Example(rapid.SampledFrom(trigger.Types()).Draw(t, "type"))
		d := &m.Data
		d.Trigger.Name, d.Explanation, d.Site.Domain = hostile.Draw(t, "name"), hostile.Draw(t, "explanation"), hostile.Draw(t, "domain")
		d.Group = &trigger.Group{Dimension: trigger.Dimension(hostile.Draw(t, "dimension")), Value: hostile.Draw(t, "value")}
		ranked := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) trigger.Ranked {
			return trigger.Ranked{Name: hostile.Draw(t, "ranked"), Visitors: rapid.Int64().Draw(t, "visitors")}
		}), 0, 7)
		d.Context = &trigger.Context{TopSources: ranked.Draw(t, "sources"), TopPages: ranked.Draw(t, "pages")}
		d.Conversions = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) trigger.Conversion {
			return trigger.Conversion{Time: slot, Page: hostile.Draw(t, "page"), Source: hostile.Draw(t, "source"), Country: hostile.Draw(t, "country")}
		}), 0, 7).Draw(t, "conversions")
		d.DashboardURL = rapid.SampledFrom([]string{"https://plausible.example.com/a.example%2Fblog", "https://x.example/|<!channel>", "javascript:x", "https://evil@x.example/", ""}).Draw(t, "url")
		var raw []byte
		if messages := rapid.SampledFrom([]int{1, 1, 1, 2, 12}).Draw(t, "messages"); messages == 1 {
			raw, _ = json.Marshal(m)
		} else {
			raw, _ = json.Marshal(map[string]any{"type": "batch", "data": map[string]any{"messages": slices.Repeat([]trigger.Message{m}, messages)}})
		}
		for _, f := range services {
			body, err := renderer(t, f, "").Render(context.Background(), raw)
			require.NoError(t, err)
			checkLimits(t, f, body)
			checkTexts(t, f, body)
		}
	})
}

// FuzzMessage: whatever a message is, it is rendered within the limits or refused, and strangers'
// texts stay texts.
func FuzzMessage(f *testing.F) {
	for _, raw := range messages(f) {
		f.Add(raw, "/page <!channel> @everyone https://evil.example")
	}
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		m := trigger.Example(trigger.NewSourceType)
		m.Data.Trigger.Name, m.Data.Explanation, m.Data.Group.Value, m.Data.Context.TopPages[0].Name = text, text, text, text
		ours, _ := json.Marshal(m)
		for _, service := range services {
			r := renderer(t, service, "")
			for _, message := range [][]byte{raw, ours} {
				body, err := r.Render(t.Context(), message)
				if err != nil {
					require.False(t, json.Valid(message))
					continue
				}
				checkLimits(t, service, body)
				checkTexts(t, service, body)
			}
		}
	})
}

// ---------------------------------------------------------------- what the services say

type checker interface {
	require.TestingT
	Helper()
}

// checkLimits holds a body against the limits that the service documents.
func checkLimits(t checker, f Format, body []byte) {
	t.Helper()
	require.True(t, json.Valid(body))
	within := func(what, text string, most int) {
		t.Helper()
		require.NotEmpty(t, text, what)
		require.LessOrEqual(t, units(text), most, what)
	}
	switch f {
	case Slack:
		var m struct {
			Text   string
			Blocks []struct {
				Type     string
				Text     *slackObject
				Fields   []slackObject
				Elements []slackObject
			}
		}
		require.NoError(t, json.Unmarshal(body, &m))
		within("the text", m.Text, 4000)
		require.NotEmpty(t, m.Blocks)
		require.LessOrEqual(t, len(m.Blocks), 50)
		for _, b := range m.Blocks {
			switch b.Type {
			case "header":
				require.Equal(t, "plain_text", b.Text.Type)
				within("a header", b.Text.Text, 150)
			case "section":
				require.True(t, b.Text != nil || len(b.Fields) > 0)
				require.LessOrEqual(t, len(b.Fields), 10)
				if b.Text != nil {
					within("a section", b.Text.Text, 3000)
				}
				for _, field := range b.Fields {
					within("a field", field.Text, 2000)
				}
			case "context":
				require.NotEmpty(t, b.Elements)
				require.LessOrEqual(t, len(b.Elements), 10)
				for _, element := range b.Elements {
					within("an element", element.Text, 3000)
				}
			default:
				require.Fail(t, "a block that is not known", b.Type)
			}
		}
	case Discord:
		var m discordMessage
		require.NoError(t, json.Unmarshal(body, &m))
		require.Contains(t, string(body), `"allowed_mentions":{"parse":[]}`)
		require.NotEmpty(t, m.Embeds)
		require.LessOrEqual(t, len(m.Embeds), 10)
		total := 0
		for _, e := range m.Embeds {
			within("a title", e.Title, 256)
			require.LessOrEqual(t, units(e.Description), 4096)
			require.LessOrEqual(t, len(e.Fields), 25)
			total += units(e.Title) + units(e.Description)
			for _, field := range e.Fields {
				within("a field's name", field.Name, 256)
				within("a field", field.Value, 1024)
				total += units(field.Name) + units(field.Value)
			}
			if e.Footer != nil {
				require.LessOrEqual(t, units(e.Footer.Text), 2048)
				total += units(e.Footer.Text)
			}
		}
		require.LessOrEqual(t, total, 6000)
	case Teams:
		require.LessOrEqual(t, len(body), 28*1024)
		var m teamsMessage
		require.NoError(t, json.Unmarshal(body, &m))
		require.Equal(t, "message", m.Type)
		require.Len(t, m.Attachments, 1)
		require.Equal(t, "AdaptiveCard", m.Attachments[0].Content.Type)
		require.NotEmpty(t, m.Attachments[0].Content.Body)
		for _, element := range m.Attachments[0].Content.Body {
			require.NotEmpty(t, element.Inlines)
			for _, run := range element.Inlines {
				require.NotEmpty(t, run.Text)
			}
		}
	}
}

var (
	slackLink     = regexp.MustCompile(`^<https?://[^<>|\s]+\|Open the dashboard>$`)
	mention       = regexp.MustCompile(`(?i)<[!@#]|@(everyone|here|channel)`)
	escaped       = regexp.MustCompile(`\\[^0-9A-Za-z\s]`)
	discordMarkup = regexp.MustCompile("[\\\\`*_~|<>\\[\\](){}#:]")
)

// checkTexts looks for whatever a service would make of a text besides showing it.
func checkTexts(t checker, f Format, body []byte) {
	t.Helper()
	var document any
	require.NoError(t, json.Unmarshal(body, &document))
	each(document, func(object map[string]any) {
		for name, value := range object {
			text, isText := value.(string)
			if !isText {
				continue
			}
			shown := escaped.ReplaceAllString(text, "")
			require.False(t, mention.MatchString(shown), "%s: %s", name, text)
			require.NotContains(t, text, "\u202e")
			switch {
			case f == Slack && name == "text" && object["type"] == "mrkdwn":
				require.Regexp(t, slackLink, text)
				require.Equal(t, true, object["verbatim"])
			case f == Slack && name == "text" && object["blocks"] != nil:
				require.NotContains(t, text, "<")
				require.Equal(t, false, object["mrkdwn"])
			case f == Discord && (name == "title" || name == "description" || name == "value"):
				require.False(t, discordMarkup.MatchString(shown), "%s: %s", name, text)
			case f == Teams && name == "type":
				require.Contains(t, []string{"message", "AdaptiveCard", "RichTextBlock", "TextRun", "Action.OpenUrl"}, text, "an element that looks for markup")
			case f == Teams && name == "text":
				require.NotContains(t, text, "{{")
			case name == "url":
				require.Regexp(t, `^https?://`, text)
			}
		}
	})
}

func each(value any, f func(map[string]any)) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			each(element, f)
		}
	case map[string]any:
		f(value)
		for _, property := range value {
			each(property, f)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"", 5, ""}, {"12345", 5, "12345"}, {"123456", 5, "1234…"}, {"😀😀😀", 5, "😀😀…"}, {"😀😀😀", 6, "😀😀😀"}, {"  a \n\t b\x00c  ", 9, "a b c"},
		{"a\u202eb", 9, "ab"}, {"\xff", 9, "\uFFFD"},
	} {
		assert.Equal(t, c.want, clip(c.text, c.most, plain), "%q", c.text)
	}
	assert.Equal(t, `\*\*…`, clip("*****", 5, discordEscape), "no escape is cut in two")
}

func BenchmarkRender(b *testing.B) {
	raw := messages(b)["goal_achieved"]
	for _, c := range []struct {
		format   Format
		template string
	}{
		{Standard, ""}, {Slack, ""}, {Discord, ""}, {Teams, ""},
		{Custom, `{text: "\(.data.trigger.name): \(.data.value)", pages: [.data.context.top_pages[] | "\(.name) \(.visitors)"]}`},
	} {
		b.Run(string(c.format), func(b *testing.B) {
			r := renderer(b, c.format, c.template)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Render(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
