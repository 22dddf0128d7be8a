package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// tolerance is how old a message may be, or how far ahead the sender's clock.
const tolerance = 5 * time.Minute

var publicKey = decode(os.Getenv("WEBHOOK_PUBLIC_KEY"))

func decode(text string) ed25519.PublicKey {
	encoded, found := strings.CutPrefix(text, "whpk_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(key) != ed25519.PublicKeySize {
		log.Fatal("WEBHOOK_PUBLIC_KEY must be the webhook's public key, whpk_…")
	}
	return key
}

// verify returns an error unless the message is genuine and of these minutes.
func verify(body []byte, header http.Header) error {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return errors.New("the webhook-id or the webhook-timestamp is missing or malformed")
	}
	if time.Since(time.Unix(seconds, 0)).Abs() > tolerance {
		return errors.New("the webhook-timestamp is too old or too new")
	}
	signed := append([]byte(id+"."+timestamp+"."), body...)
	for entry := range strings.SplitSeq(header.Get("webhook-signature"), " ") {
		encoded, found := strings.CutPrefix(entry, "v1a,")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if found && err == nil && ed25519.Verify(publicKey, signed, signature) {
			return nil
		}
	}
	return errors.New("no signature matches")
}
