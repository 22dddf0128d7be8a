// Command dispatcher sends firings to their webhooks. Its configuration is the environment:
// see dispatcher.Config.
package main

import (
	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher"
)

func main() { daemon.Main("dispatcher", dispatcher.Run) }
