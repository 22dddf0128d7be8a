// Command api is the REST API: webhooks, triggers and the history of deliveries.
package main

import (
	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/api"
)

func main() { daemon.Main("api", api.Run) }
