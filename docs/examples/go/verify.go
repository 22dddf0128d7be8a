package main

import (
	"log"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var webhook = newWebhook(os.Getenv("WEBHOOK_SECRET"))

func newWebhook(secret string) *standardwebhooks.Webhook {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil || secret == "" { // the library takes an empty one, with which anybody can sign
		log.Fatal("WEBHOOK_SECRET must be the webhook's secret, whsec_…")
	}
	return webhook
}

// verify returns an error unless the message is genuine and of these minutes.
func verify(body []byte, header http.Header) error {
	return webhook.Verify(body, header)
}
