// Package rest is the generated side of the api: the routes, and the types of what it answers.
// The document that they are made of is openapi.yaml of the package api.
package rest

import "encoding/json"

// createdWebhook is a webhook with the secret that it was created with.
type createdWebhook struct {
	WebhookView
	Secret string `json:"secret"`
}

// deliveryDetails is a delivery with what was sent and what came back.
type deliveryDetails struct {
	DeliveryView
	Payload     json.RawMessage `json:"payload"`
	AttemptList []Attempt       `json:"attempt_list"`
}
