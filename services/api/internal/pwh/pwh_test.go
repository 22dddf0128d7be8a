package pwh

import (
	"encoding/json"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTriggersAreWrittenShort(t *testing.T) {
	for text, want := range map[string]string{
		"visitor_spike":                       `{"type": "visitor_spike", "config": {}}`,
		"visitor_spike:":                      `{"type": "visitor_spike", "config": {}}`,
		"visitor_spike:threshold=1e3":         `{"type": "visitor_spike", "config": {"threshold": 1e3}}`,
		"x:a=null,b=true,c=,d=-,e=1x":         `{"type": "x", "config": {"a": null, "b": true, "c": "", "d": "-", "e": "1x"}}`,
		"x:milestones=[10,100],every=5":       `{"type": "x", "config": {"milestones": [10, 100], "every": 5}}`,
		"x:goal.event_name=Sign up, now":      `{"type": "x", "config": {"goal": {"event_name": "Sign up, now"}}}`,
		`x:goal.event_name="404"`:             `{"type": "x", "config": {"goal": {"event_name": "404"}}}`,
		"x:goal.page_path=/a=b:c":             `{"type": "x", "config": {"goal": {"page_path": "/a=b:c"}}}`,
		"x:goal.custom_props.plan=a,goal.b=1": `{"type": "x", "config": {"goal": {"custom_props": {"plan": "a"}, "b": 1}}}`,
		"x:goal=1,goal.b=1":                   `{"type": "x", "config": {"goal": {"b": 1}}}`,
		"x:name=A, B and C, enabled=false":    `{"type": "x", "config": {}, "name": "A, B and C", "enabled": false}`,
		`x:filters=[["is","visit:country",["EE","FI"]]],cooldown_seconds=5`: `{"type": "x", "config": {}, "filters": [["is", "visit:country", ["EE", "FI"]]], "cooldown_seconds": 5}`,
	} {
		trigger, err := parseTrigger(text)
		require.NoError(t, err, text)
		raw, err := json.Marshal(trigger)
		require.NoError(t, err)
		assert.JSONEq(t, want, string(raw), text)
	}
	_, err := parseTrigger("x:5,a=1")
	assert.ErrorContains(t, err, `"5" has no =`)
}

// FuzzTables: whatever is shown, no line is wider than a terminal, and nothing is in it that a terminal obeys.
func FuzzTables(f *testing.F) {
	f.Add("msg_1", "the receiver answered 500", "https://example.com/"+strings.Repeat("x", 200))
	f.Add("", "\x1b]0;title\a\n\u202e", strings.Repeat("ü", 99)+" "+strings.Repeat("語", 101))
	f.Fuzz(func(t *testing.T, short, note, long string) {
		var text strings.Builder
		table := newTable("ID", "URL")
		table.row(string([]rune(short)[:min(30, utf8.RuneCountInString(short))]), long)
		table.note(note)
		table.print(&output{to: &text}, "none")
		for line := range strings.Lines(text.String()) {
			line = strings.TrimSuffix(line, "\n")
			require.LessOrEqual(t, utf8.RuneCountInString(line), lineWidth, "%q", line)
			require.Equal(t, clean(line), line)
			require.True(t, utf8.ValidString(line), "%q", line)
		}
		words := strings.Fields(clean(note))
		require.Equal(t, strings.Join(words, ""), strings.ReplaceAll(strings.Join(wrap(note, 40), ""), " ", ""), "nothing of a note is lost")
	})
}

// TestForwardingIsCheckedWhenItDials: a name that led to this machine at the start may lead elsewhere later.
func TestForwardingIsCheckedWhenItDials(t *testing.T) {
	f, err := (&listenCommand{Forward: "http://127.0.0.1:3000/hook"}).forwarder(t.Context(), &session{})
	require.NoError(t, err)
	for _, elsewhere := range []string{"http://8.8.8.8/hook", "http://[2001:4860:4860::8888]/hook", "http://169.254.169.254/", "http://[::ffff:8.8.8.8]/"} {
		f.target = elsewhere
		_, err = f.post(t.Context(), "msg_1", time.Now(), []byte("{}"))
		assert.ErrorIs(t, err, errRemote, elsewhere)
	}
}

// TestTheWatchdogBarksAtSilence: while the stream is read, not while a slow receiver has a message.
func TestTheWatchdogBarksAtSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var barked atomic.Bool
		watchdog := time.AfterFunc(silence, func() { barked.Store(true) })
		stream, api := io.Pipe()
		reading := watched{stream, watchdog}
		for range 3 {
			go func() {
				time.Sleep(silence - time.Second)
				_, err := io.WriteString(api, ": alive\n\n")
				assert.NoError(t, err)
			}()
			_, err := reading.Read(make([]byte, 100))
			require.NoError(t, err)
			time.Sleep(time.Hour)
			require.False(t, barked.Load())
		}
		go func() { _, _ = reading.Read(make([]byte, 100)) }()
		time.Sleep(silence + time.Second)
		require.True(t, barked.Load())
		require.NoError(t, api.Close())
	})
}
