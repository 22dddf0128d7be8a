package pwh

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
)

type verifyCommand struct {
	Body      string        `arg:"" optional:"" default:"-" name:"file" help:"The body, byte for byte as it arrived; - reads the standard input."`
	Secret    string        `env:"PWH_SECRET" placeholder:"whsec_…" help:"The webhook's secret, or its public key: whpk_…."`
	Headers   string        `placeholder:"FILE" help:"A file with the request's header lines, instead of the three below."`
	ID        string        `name:"id" help:"The header webhook-id."`
	Timestamp string        `help:"The header webhook-timestamp."`
	Signature string        `help:"The header webhook-signature."`
	Tolerance time.Duration `default:"5m" help:"How old or early a message may be."`
}

func (c *verifyCommand) Run(ctx context.Context, s *session) error {
	verify, err := verifier(c.Secret)
	if err != nil {
		return err
	}
	if c.Headers != "" {
		if c.ID+c.Timestamp+c.Signature != "" {
			return usage("--headers has all headers: give no other beside it")
		}
		if err := c.readHeaders(); err != nil {
			return err
		}
	}
	for _, header := range [][2]string{{signature.HeaderID, c.ID}, {signature.HeaderTimestamp, c.Timestamp}, {signature.HeaderSignature, c.Signature}} {
		if header[1] == "" {
			return usage("the header %s is missing: give it as a flag or in --headers", header[0])
		}
	}
	unix, err := strconv.ParseInt(c.Timestamp, 10, 64)
	if err != nil {
		return usage("the timestamp must be the seconds since 1970, such as %d", time.Now().Unix())
	}
	body, err := s.input(ctx, c.Body, io.ReadAll)
	if err != nil {
		return err
	}
	at := time.Unix(unix, 0)
	age := time.Since(at).Round(time.Second)
	problem := ""
	switch {
	case !verify(c.ID, at, body, strings.Fields(c.Signature)):
		problem = "the signature is not right: check the secret, and that the body is byte for byte what arrived"
	case age.Abs() > c.Tolerance:
		problem = fmt.Sprintf("the signature is right, but the message is of %s and only %s are tolerated: it may have been sent before, or a clock is wrong", s.at(at), c.Tolerance)
	}
	if s.JSON {
		line, err := json.Marshal(map[string]any{"valid": problem == "", "problem": problem, "timestamp": at.UTC()})
		if err != nil {
			return err
		}
		s.machine(line)
	}
	if problem != "" {
		return errors.New(problem)
	}
	if !s.JSON {
		s.out.printf("The signature of %s is right; it was made at %s.\n", clean(c.ID), s.at(at))
	}
	return nil
}

// readHeaders takes the three from header lines in any order, as a log or curl -v shows them.
func (c *verifyCommand) readHeaders() error {
	text, err := os.ReadFile(c.Headers)
	if err != nil {
		return usage("the headers cannot be read: %v", err)
	}
	found := http.Header{}
	for line := range strings.Lines(string(text)) {
		if name, value, is := strings.Cut(strings.TrimLeft(line, "<> "), ":"); is {
			found.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	c.ID, c.Timestamp, c.Signature = found.Get(signature.HeaderID), found.Get(signature.HeaderTimestamp), found.Get(signature.HeaderSignature)
	return nil
}

// verifier tells whether one of a message's signatures is right for a secret, or for a public key.
func verifier(text string) (func(id string, at time.Time, body []byte, signatures []string) bool, error) {
	if encoded, public := strings.CutPrefix(text, "whpk_"); public {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, usage("--secret begins as a public key, but is none: copy it as a whole")
		}
		return func(id string, at time.Time, body []byte, signatures []string) bool {
			signed := fmt.Appendf(nil, "%s.%d.%s", id, at.Unix(), body)
			for _, one := range signatures {
				made, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1a,"))
				if err == nil && strings.HasPrefix(one, "v1a,") && ed25519.Verify(key, signed, made) {
					return true
				}
			}
			return false
		}, nil
	}
	if text == "" {
		return nil, usage("the webhook's secret is needed: give it as $PWH_SECRET or --secret")
	}
	secret, err := signature.ParseSecret(text)
	if err != nil {
		return nil, usage("--secret cannot be used: %v", err)
	}
	return func(id string, at time.Time, body []byte, signatures []string) bool {
		right := signature.Sign(id, at, body, secret)
		for _, one := range signatures {
			if hmac.Equal([]byte(one), []byte(right)) {
				return true
			}
		}
		return false
	}, nil
}
