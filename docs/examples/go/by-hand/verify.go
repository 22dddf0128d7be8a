package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// tolerance is how old a message may be, or how far ahead the sender's clock.
const tolerance = 5 * time.Minute

var key = decode(os.Getenv("WEBHOOK_SECRET"))

func decode(secret string) []byte {
	encoded, found := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(key) < 24 {
		log.Fatal("WEBHOOK_SECRET must be the webhook's secret, whsec_…")
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
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for signature := range strings.SplitSeq(header.Get("webhook-signature"), " ") {
		if hmac.Equal([]byte(signature), []byte(expected)) { // takes the same time wherever they differ
			return nil
		}
	}
	return errors.New("no signature matches")
}
