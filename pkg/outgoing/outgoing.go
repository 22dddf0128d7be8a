// Package outgoing is what a request to a receiver has besides its body. The dispatcher sends by it, and the api
// shows by it what would be sent, so both are the same.
package outgoing

import (
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/vault"
)

// Field is a header.
type Field struct{ Name, Value string }

var (
	contentType = []string{"application/json"}
	userAgent   = []string{"Plausible-Webhooks/" + version()}
)

// version is that of the program, as its build knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// The signature's headers as net/http spells them; receivers compare without case.
var (
	headerID        = http.CanonicalHeaderKey(signature.HeaderID)
	headerTimestamp = http.CanonicalHeaderKey(signature.HeaderTimestamp)
	headerSignature = http.CanonicalHeaderKey(signature.HeaderSignature)
)

// Own are the headers that a webhook's owner wants sent, without those that are ours or the connection's, and
// without any that could not be sent.
func Own(stored map[string]string) http.Header {
	header := make(http.Header, len(stored))
	for name, value := range stored {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if !target.ReservedHeader(name) && httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value) {
			header[name] = []string{value}
		}
	}
	return header
}

// Lasting are the headers of all requests to a webhook: its owner's, and ours over them.
func Lasting(own http.Header) http.Header {
	header := make(http.Header, len(own)+2)
	maps.Copy(header, own)
	header["Content-Type"] = contentType
	header["User-Agent"] = userAgent
	return header
}

// Sign makes the headers of one attempt.
func Sign(id string, body []byte, now time.Time, signers []signature.Signer) [3]Field {
	return [...]Field{
		{headerID, id},
		{headerTimestamp, strconv.FormatInt(now.Unix(), 10)},
		{headerSignature, signature.Sign(id, now, body, signers...)},
	}
}

// Signers unseals what a webhook is signed with: secrets and keys, in the order in which they are stored.
func Signers(v vault.Vault, webhookID string, sealed [][]byte) ([]signature.Signer, error) {
	signers := make([]signature.Signer, 0, len(sealed))
	for _, each := range sealed {
		text, err := v.Open(each, webhookID)
		if err != nil {
			return nil, err
		}
		signer, err := signature.Parse(text)
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	if len(signers) == 0 {
		return nil, errors.New("the webhook has no secret to sign with")
	}
	return signers, nil
}
