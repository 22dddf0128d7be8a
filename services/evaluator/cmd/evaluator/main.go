// Command evaluator finds out when triggers fire.
package main

import (
	"os"
	"runtime/debug"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator"
)

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(evaluator.GarbagePercent)
	}
	daemon.Main("evaluator", evaluator.Run)
}
