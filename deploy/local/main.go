// Command local is the whole product on one machine, in one process, without Docker: it starts
// the engines, creates and seeds Plausible's side, applies the migrations, runs the three
// services with the same code as in production, lets visitors come to the demo site, and prints
// what a receiver of its own gets.
//
// settings.go reads the environment, home.go is the folder that survives a restart, stack.go is
// the order in which everything starts and stops, services.go the product, demo.go what a new
// user would do over REST, receiver.go who listens, terminal.go what is seen of it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	out := newTerminal(os.Stdout)

	// The first signal stops in good order, the second has its default effect.
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer context.AfterFunc(ctx, release)()
	// Where nobody reads the output any more, a write fails; it must not end the process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	if err := up(ctx, os.Environ(), out); err != nil {
		out.failure(err)
		os.Exit(1)
	}
}
