package format

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/itchyny/gojq"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// expressions use all that templates have, with one value each.
var expressions = []string{
	`.`, `.data`, `.data.value`, `.data["value"]`, `.data.context.top_pages[0].name`, `.data.context.top_pages[-1]`, `.data.context.top_pages[0:1]`, `.nothing.at.all`,
	`{text: "\(.data.trigger.name): \(.data.value) of \(.data.threshold)"}`, `{type, data: {value: .data.value}, "a b": 1, ("x" + "y"): 2}`,
	`[.data.context.top_pages[] | {name, n: .visitors}]`, `[.data.context.top_sources[].name] | join(", ")`, `.data.context.top_pages | map(.visitors) | add`,
	`.data.value += 1 | .data.value *= 2 | .data.value -= 3 | .data.value /= 4 | .data.value`, `.data.value %= 7`, `.data.nothing //= 5`, `.data.value = 5`, `.data.value |= . + 1`,
	`.data.context.top_pages[].name |= ascii_upcase`, `.data.context.top_pages |= sort_by(-.visitors)`, `del(.data.context)`, `del(.data.context.top_pages[0], .type)`,
	`.data | to_entries | map(.key)`, `.data | with_entries(select(.value | type == "string"))`, `.data | keys`, `[.data | .. | numbers]`, `[paths] | length`,
	`if .type == "visitor_spike.fired" then "spike" elif .data.late then "late" else "else" end`, `try error("x") catch .`, `[.data[]?] | length`, `.data.value.x? // "none"`,
	`reduce .data.context.top_pages[] as $p (0; . + $p.visitors)`, `[foreach range(5) as $i (0; . + $i; [$i, .])]`, `[limit(3; repeat(1))]`, `first(range(5; 10))`, `[range(0; 10; 3)]`,
	`[recurse(if . < 3 then . + 1 else empty end; . != null)]? // [0 | recurse(if . < 3 then . + 1 else empty end)]`, `0 | until(. > 5; . + 1)`, `[1 | while(. < 50; . * 2)]`,
	`def double: . * 2; .data.value | double`, `def f(g; $x): [g, $x, x]; f(.type; 3)`, `def fac: if . < 2 then 1 else . * (. - 1 | fac) end; 10 | fac`, `def map(f): "mine"; map(1)`,
	`def f: def g: 3; g; f`, `. as {type: $t, data: {value: $v}} | [$t, $v]`, `[1, [2]] as [$a, [$b]] | $a + $b`, `. as [$a] ?// {type: $a} | $a`, `label $out | 1, break $out`,
	`"a-b-c" | split("-")`, `"a-b-c" | gsub("-"; "+")`, `"a-b-c" | sub("(?<x>[a-z])"; "\(.x)\(.x)")`, `"test" | test("T"; "i")`, `"banana" | [match("a"; "g")]`, `"aXbX" | [scan("[A-Z]")]`, `"2026-11" | capture("(?<y>\\d+)-(?<m>\\d+)")`,
	`[splits("x")]? // ["a1b2" | splits("\\d")]`, `"a1b" | split("\\d"; null)`, `"abc" | contains("b")`, `["a", "b"] | contains(["a"])`, `"banana" | indices("an")`, `[1, 2, 1] | index(1)`, `"b" | inside("abc")`,
	`[3, 1, 2] - [1]`, `{a: 1} * {a: {b: 2}}`, `"ab" * 3`, `"a,b" / ","`, `7 % 4`, `-(.data.value)`, `1 - 2 - 3`, `2 * 3 * 4`, `[.[]?] | length`, `10 / 4 / 5`,
	`"<&'\">" | @html`, `@uri "\(.type)/x y"`, `[1, "a"] | @csv, @tsv | strings`, `@json "x\(.data.trigger)"`, `"x" | @base64`, `"eA==" | @base64d`, `@sh "echo \("a b")"`, `[1] | @text`,
	`.timestamp | fromdate | todate`, `0 | strftime("%Y-%m-%d")`, `"2026-11-23" | strptime("%Y-%m-%d") | mktime`, `[3, 1, 2] | sort, unique | first`, `[{a: 1}, {a: 2}] | group_by(.a) | length`,
	`[1, null, 2] | map(values)`, `[[1, [2]], 3] | flatten`, `[1, 2] | any(. > 1)`, `[1, 2] | all(. > 1)`, `"12" | tonumber`, `1 | tostring`, `{a: 1} | tojson`, `"abc" | explode | reverse | implode`,
	`[1, 2, 3] | min, max | select(. > 2)`, `[1.5, 2.4] | map(floor, ceil, round)`, `isempty(empty)`, `[1, 2] | IN([1, 2], [3])`, `{"a": 1} | has("a")`, `"a" | in({"a": 1})`, `{a: {b: 1, c: 2}} | pick(.a.b)`,
	`[1, [2]] | walk(if type == "number" then . + 1 else . end)`, `{} | .a.b.c = 1`, `[] | .[3] = 1`, `null | [.[]?]`, `path(.data.value)`, `(.data | .value) |= 9`, `.data |= (.value = 1 | .threshold = 2)`,
	`[.data.context.top_pages[] | select(.visitors > 0).name]`, `.data.context | .top_pages[0].name, .top_sources[0].name | select(startswith("/"))`, `"ab" | ltrimstr("a") | rtrimstr("b") | length`,
	`..|objects|select(has("top_pages"))|.top_pages|length`, `.. |= .`, `[..] | length`, `.[("ty" + "pe")]`, `.data.context.top_pages[1 - 1].name`, `@text`, `"\("nested \("twice")")"`, `.data."value"`, `."type"`,
}

// TestGuardedExpressionsMeanTheSame as in jq itself: the meters change no result.
func TestGuardedExpressionsMeanTheSame(t *testing.T) {
	message := messages(t)["goal_achieved"]
	for _, text := range expressions {
		query, err := gojq.Parse(text)
		require.NoError(t, err, text)
		var input any
		require.NoError(t, json.Unmarshal(message, &input))
		var want []any
		results := query.RunWithContext(t.Context(), input)
		for v, some := results.Next(); some; v, some = results.Next() {
			_, failed := v.(error)
			require.False(t, failed, "%s: %v", text, v)
			want = append(want, v)
		}
		body, err := renderer(t, Custom, text).Render(t.Context(), message)
		if len(want) != 1 {
			assert.ErrorContains(t, err, "exactly one", text)
			continue
		}
		if assert.NoError(t, err, text) {
			plain, err := gojq.Marshal(want[0])
			require.NoError(t, err)
			assert.Equal(t, string(plain), string(body), text)
		}
	}
}

// TestEveryListedFunctionExists, so that the list promises nothing that jq does not have.
func TestEveryListedFunctionExists(t *testing.T) {
	for signature := range functions {
		name, arguments, _ := strings.Cut(signature, "/")
		text := "try " + name + map[string]string{"0": "", "1": `("x")`, "2": `("x"; "g")`, "3": `("x"; "y"; "g")`}[arguments] + " catch 0"
		if name == "path" || name == "paths" || name == "del" || name == "pick" {
			text = strings.Replace(text, `"x"`, ".x", 1)
		}
		_, err := Compile(Custom, text)
		assert.NoError(t, err, text)
	}
}

func TestTemplatesAreRefusedWithASentence(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "is required: a jq expression that makes the body of the message",
		strings.Repeat(" ", MaxTemplate+1): "must have at most 16384 bytes",
		`{text: `:                          "is not a valid jq expression: unexpected EOF, in line 1 at character 8",
		"{\n  a: }":                        `is not a valid jq expression: unexpected token "}", in line 2 at character 6`,
		`"a`:                               "is not a valid jq expression: unterminated string literal, in line 1 at character 3",
		`$x`:                               "is not a valid jq expression: variable not defined: $x",
		`input`:                            "uses input/0, which templates do not have",
		`[inputs]`:                         "uses inputs/0, which templates do not have",
		`env.PATH`:                         "uses env/0, which templates do not have",
		`$ENV.PATH`:                        "uses $ENV, which templates do not have",
		`{$ENV}`:                           "uses $ENV, which templates do not have",
		`$__budget`:                        "uses $__budget, which templates do not have",
		`{$__budget}`:                      "uses $__budget, which templates do not have",
		`1 as $__budget | .`:               "uses $__budget, which templates do not have",
		`. as {$__budget} | .`:             "uses $__budget, which templates do not have",
		`def f($__budget): 1; f(2)`:        "uses $__budget, which templates do not have",
		`__charge(.)`:                      "uses __charge/1, which templates do not have",
		`_modify(.a; 1)`:                   "uses _modify/2, which templates do not have",
		`now`:                              "uses now/0, which templates do not have",
		`halt`:                             "uses halt/0, which templates do not have",
		`debug`:                            "uses debug/0, which templates do not have",
		`nonsense(1)`:                      "uses nonsense/1, which templates do not have",
		`setpath([1e9]; 1)`:                "uses setpath/2, which templates do not have",
		`getpath(["a"])`:                   "uses getpath/1, which templates do not have",
		`(def f: 1; f) | f`:                "uses f/0, which templates do not have",
		`import "a" as a; .`:               "cannot use modules",
		`include "a"; .`:                   "cannot use modules",
		`@base32`:                          "uses @base32, which templates do not have",
		`"\(input)"`:                       "uses input/0, which templates do not have",
		`@json "\(input)"`:                 "uses input/0, which templates do not have",
		`{"a\(input)": 1}`:                 "uses input/0, which templates do not have",
		`{(input): 1}`:                     "uses input/0, which templates do not have",
		`.[input]`:                         "uses input/0, which templates do not have",
		`.["\(input)"]`:                    "uses input/0, which templates do not have",
		`.[1:input]`:                       "uses input/0, which templates do not have",
		`. as {(input): $x} | 1`:           "uses input/0, which templates do not have",
		`. as {"\(input)": $x} | 1`:        "uses input/0, which templates do not have",
		`test(.type)`:                      "must write the regular expression of test, and its flags, as constant texts",
		`test("a"; .type)`:                 "must write the regular expression of test, and its flags, as constant texts",
		`gsub("a"; "b"; .type)`:            "must write the regular expression of gsub, and its flags, as constant texts",
		`test("(")`:                        "has a faulty regular expression: missing closing ): `(`",
		`test("(abcdefgh){500}")`:          "has a regular expression that is too complex",
		strings.Repeat("9", 101):           "has a number of more than 100 digits",
	} {
		_, err := Compile(Custom, text)
		require.EqualError(t, err, want, text)
	}
}

func TestTemplatesThatFailSayWhy(t *testing.T) {
	for text, want := range map[string]string{
		`empty`:                   "the template makes no value of this message; it must make exactly one",
		`1, 2`:                    "the template makes several values of this message; it must make exactly one",
		`1, error("late")`:        "the template failed: error: late",
		`error`:                   "the template failed: error: {",
		`.type.x`:                 "the template failed: expected an object but got: string",
		`.type + 1`:               "the template failed: cannot add: string",
		`{(.data.value): 1}`:      "the template failed: expected a string for object key but got: number",
		`break_(1)`:               "",
		`.data.context | join(1)`: "the template failed: join needs a list and a text to put between its elements",
		`[.] | join(",")`:         "the template failed: join needs a list of texts and numbers",
		`"x" * 300000`:            "the template makes 300002 bytes of this message; at most 262144 are sent",
		`[] | .[100000] = 1`:      "the template failed: an index of a list may be at most 10000",
	} {
		r, err := Compile(Custom, text)
		if want == "" {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err, text)
		_, err = r.Render(t.Context(), messages(t)["goal_achieved"])
		require.ErrorContains(t, err, want, text)
		require.Less(t, len(err.Error()), 1500)
	}
	_, err := renderer(t, Custom, ".").Render(t.Context(), []byte("{"))
	require.ErrorContains(t, err, "the message is not JSON")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = renderer(t, Custom, "[range(100000)] | length").Render(gone, []byte("{}"))
	require.ErrorIs(t, err, context.Canceled)
}

// bombs want more time or memory than there is. Each must end, and say so.
var bombs = []string{
	`repeat(1)`, `[repeat(1)]`, `last(repeat(1))`, `[range(1e18)]`, `last(range(1e18))`, `[range(1e9) | ..]`, `def f: f; f`, `def f: 1 + f; f`, `def f: [f]; f`, `def f: f | f; f`, `def f: f, f; [f]`,
	`until(false; .)`, `[limit(1e9; repeat(1))]`, `reduce repeat(1) as $i (0; . + 1)`, `label $x | repeat(1) | select(. == 2) | break $x`,
	`"x" * 1e9`, `1e9 * "x"`, `reduce range(60) as $i ("x"; . + .)`, `reduce range(60) as $i ("x"; . * 10)`, `reduce range(60) as $i ("x"; "\(.)\(.)")`, `reduce range(60) as $i ("x"; . += .)`, `reduce range(60) as $i ({a: "x"}; .a += .a)`,
	`reduce range(90) as $i (0; [., .])`, `reduce range(90) as $i (0; [., .]) | tojson`, `reduce range(90) as $i (0; {a: ., b: .})`, `reduce range(90) as $i ([0]; . as $x | [0, 0] | map($x))`,
	`reduce range(90) as $i (0; [., .]) as $a | $a == $a`, `reduce range(90) as $i ([]; . + [.])`, `reduce range(90) as $i ([1]; . + .)`, `reduce range(90) as $i ({}; .a = . | .b = .)`, `reduce range(90) as $i ({}; {a: ., b: .} * .)`,
	`reduce range(100000) as $i (0; [.])`, `reduce range(100000) as $i ({}; {a: .})`, `[range(1000) | "x" * 1000000]`, `[range(100) as $i | "x" * 2000000 | . + "y"]`, `[range(10000) as $i | [range(1000)]]`,
	`reduce range(40) as $i (2; . * .)`, `reduce range(40) as $i (99999999999999999999; . * .)`, `reduce range(1e7) as $i (99999999999999999999; . + .)`, `"9" * 1000000 | tonumber`,
	`[range(30000)] | contains([range(30000)])`, `[range(30000)] - [range(30000) + 50000]`, `("a" * 1000000) | indices("a" * 500000)`, `[range(20000)] | index([range(10000)])`, `[range(20000)] as $a | $a | inside($a)`,
	`[range(10000)] | map("") | join("x" * 100000)`, `[] | .[1e9] = 1`, `[][1e9] |= 1`, `null | .[1e8].a[1e8] = 1`, `[] | .[5000, 9000, 9999][9999][9999] = 1`, `reduce range(9999) as $i ([]; .[$i][9999] = 1)`,
	`("a" * 16000) | gsub(""; "x" * 100000)`, `("a" * 16000) | [match("a*b|a"; "g")]`, `("a" * 16000) | [scan("a*b|a")]`, `("a" * 1000000) | test("a")`,
	`[range(60000)] as $x | def f: ($x[] | 1), f; [f]`, `[range(60000)] as $x | def f: $x | .[] | f; f`, `[range(20000)] as $x | def f: $x | .. | f; f`, `[range(20000)] as $x | [$x[] as $a | $x[] as $b | $x[] as $c | 1]`,
	`[range(20000)] as $x | def f: $x | map(f); f`, `[range(20000)] as $x | def f: $x | to_entries | map(f); f`, `try repeat(1) catch .`, `def f: try ("x" * 1e9) catch f; f`, `def f: (try ("x" * 1e9) catch 1) | f; f`,
	`[.[]?, repeat(1)]`, `[.. , ..] | map(..) | map(..) | map(..) | map(..) | map(..) | map(..)`, `walk(repeat(.))`, `[recurse(.; true)]`, `[recurse([.])]`, `with_entries(repeat(.))`,
	`("x" * 2000000) | explode | map([.]) | tojson`, `("x" * 2000000) | split("") | map([.]) | map([.])`, `[range(100) | "\u0001" * 300000 | tojson]`, `reduce range(100) as $i ("\\\""; tojson)`,
	`def f(g): g, f(g | [g, g]); [f(1)]`, `def a(x): x | x; a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(a(.)))))))))))))))))))))`, `[range(300000)] | length`,
	"def f: " + manyVariables(500) + " f, 1; [f]", "def g(x): x, g(x); [g(" + manyVariables(500) + " (1, 2))]", "def g(x): x | g(x); g(" + manyVariables(500) + " (1, 2))",
	`"\(` + strings.Repeat(`"x" * 2000000)\(`, 100) + `1)"`,
}

func manyVariables(n int) string { return strings.Repeat("1 as $a | 2 as $b | ", n/2) }

// TestBombsEnd: memory is bounded, although neither the number of steps nor the size of one is.
func TestBombsEnd(t *testing.T) {
	message := messages(t)["goal_achieved"]
	for _, text := range bombs {
		r, err := Compile(Custom, text)
		if !assert.NoError(t, err, text) {
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = r.Render(t.Context(), message)
		runtime.ReadMemStats(&after)
		assert.Error(t, err, text)
		assert.Less(t, int(after.TotalAlloc-before.TotalAlloc)>>20, 600, "MiB of %s: %v", text, err)
	}
}

// TestWorkIsCounted: the same template ends at the same point, however fast the machine is.
func TestWorkIsCounted(t *testing.T) {
	for text, want := range map[string]string{
		`repeat(1) | empty`:                                    "the template failed: it takes more than 250000 steps",
		`"x" * 1e9`:                                            "the template failed: a value has more than 2097152 bytes",
		`[range(1000) | "x" * 1000000]`:                        "the template failed: its values need more than 33554432 bytes together",
		`reduce range(1000) as $i (0; [.])`:                    "the template failed: a value is nested more than 200 levels deep",
		`reduce range(40) as $i (99999999999999999999; . * .)`: "the template failed: a number has too many digits",
		`try ("x" * 1e9) catch "caught"`:                       "the template failed: a value has more than 2097152 bytes",
	} {
		_, err := renderer(t, Custom, text).Render(t.Context(), []byte("{}"))
		require.EqualError(t, err, want, text)
	}
}

// TestTemplatesAreSafeForConcurrentUse, each with a budget of its own.
func TestTemplatesAreSafeForConcurrentUse(t *testing.T) {
	r := renderer(t, Custom, `[range(20000)] | add`)
	message := messages(t)["ping"]
	done := make(chan error)
	for range 20 {
		go func() {
			body, err := r.Render(context.Background(), message)
			if err == nil && string(body) != "199990000" {
				err = assert.AnError
			}
			done <- err
		}()
	}
	for range 20 {
		require.NoError(t, <-done)
	}
}

// FuzzTemplate: whatever an expression is, it is refused or it ends, with one JSON value or an error.
func FuzzTemplate(f *testing.F) {
	for _, text := range append(expressions, bombs[:20]...) {
		f.Add(text)
	}
	message := messages(f)["goal_achieved"]
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Compile(Custom, text)
		if err != nil {
			return
		}
		body, err := r.Render(t.Context(), message)
		if err == nil && (!json.Valid(body) || len(body) > MaxOutput) {
			t.Errorf("%q makes %d bytes, valid JSON: %v", text, len(body), json.Valid(body))
		}
	})
}
