// Command dispatcher sends firings to their webhooks. Its configuration is the environment:
// see dispatcher.Config.
package main

import (
	"os"
	"runtime/debug"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher"
)

// garbagePercent is twice the usual. What is in flight is bounded, so little memory is alive (25 MB
// at the default CONCURRENCY), and an eighth of the processor's time is worth as much again.
const garbagePercent = 200

func main() {
	if os.Getenv("GOGC") == "" { // the operator knows better
		debug.SetGCPercent(garbagePercent)
	}
	daemon.Main("dispatcher", dispatcher.Run)
}
