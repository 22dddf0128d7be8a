// Command pwh is the command-line client of the api: pwh --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/pwh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(pwh.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
