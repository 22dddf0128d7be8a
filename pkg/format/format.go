// Package format makes of a standard message what a receiver takes: the message itself, a
// message of Slack, Discord or Teams, or whatever the owner's template says. The api compiles
// what it stores and shows previews, the dispatcher renders what it sends: the same code, so
// that a preview is what will be sent.
//
// A message holds texts that strangers chose: pages, sources, properties. In the three services'
// formats they are shown as they are, and never become markup, a link or a mention.
package format

import (
	"context"
	"fmt"
)

// Format names what a webhook's receiver takes.
type Format string

// The formats.
const (
	Standard Format = "standard" // the message, byte for byte
	Slack    Format = "slack"
	Discord  Format = "discord"
	Teams    Format = "teams"
	Custom   Format = "custom" // what a jq expression makes of the message
)

// Names lists the formats; the first one is the default.
var Names = []Format{Standard, Slack, Discord, Teams, Custom}

// Renderer makes bodies of messages: one JSON value each. It is safe for concurrent use.
type Renderer struct {
	template *template // of Custom alone
	card     func([]byte) ([]byte, error)
}

// Compile prepares a format with its template, which Custom needs and no other has. The error is a
// sentence for the webhook's owner.
func Compile(f Format, text string) (Renderer, error) {
	switch f {
	case Standard:
		return Renderer{}, nil
	case Slack:
		return Renderer{card: slack}, nil
	case Discord:
		return Renderer{card: discord}, nil
	case Teams:
		return Renderer{card: teams}, nil
	case Custom:
		t, err := compile(text)
		return Renderer{template: t}, err
	}
	return Renderer{}, fmt.Errorf("the format %q is unknown", f)
}

// Render makes the body of a message. The error is a sentence for the webhook's owner.
func (r Renderer) Render(ctx context.Context, message []byte) ([]byte, error) {
	switch {
	case r.template != nil:
		return r.template.render(ctx, message)
	case r.card != nil:
		return r.card(message)
	}
	return message, nil
}
