package format

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf16"
)

// An escape writes one character so that a service shows it as it is.
type escape func(r rune) string

// plain is for where a service knows no markup.
func plain(r rune) string { return string(r) }

// zeroWidth is a space that nobody sees.
const zeroWidth = "\u200b"

// apart keeps what begins a mention or a tag apart from the name behind it, also where the service
// should look for neither.
func apart(r rune) string {
	if r == '@' || r == '<' {
		return string(r) + zeroWidth
	}
	return string(r)
}

// clip makes one line of a text, of at most so many characters as the services count them: in UTF-16.
// Characters that reorder the text around them are left out, so that nothing looks like what it is not.
func clip(text string, most int, as escape) string {
	var clipped strings.Builder
	length, mark := 0, 0 // mark is where the ellipsis would still fit
	space := false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			space = clipped.Len() > 0
			continue
		case unicode.Is(unicode.Bidi_Control, r):
			continue
		}
		written := as(r)
		if space {
			written, space = " "+written, false
		}
		size := units(written)
		if length+size > most {
			return clipped.String()[:mark] + "…"
		}
		clipped.WriteString(written)
		if length += size; length < most {
			mark = clipped.Len()
		}
	}
	return clipped.String()
}

// units is the length of a text in UTF-16.
func units(text string) int {
	n := 0
	for _, r := range text {
		n += max(1, utf16.RuneLen(r))
	}
	return n
}

// link is an address that may be linked to, or empty. Its host and path are encoded anew, so that
// no markup is left in it.
func link(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || len(address) > 1000 {
		return ""
	}
	clean := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := clean.String()
	if strings.ContainsAny(text, "<>|\"`()[]{} \\*") || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return ""
	}
	return text
}
