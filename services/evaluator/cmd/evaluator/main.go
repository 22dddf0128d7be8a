// Command evaluator finds out when triggers fire.
package main

import (
	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator"
)

func main() { daemon.Main("evaluator", evaluator.Run) }
