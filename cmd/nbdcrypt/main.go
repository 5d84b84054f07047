// Command nbdcrypt exports encrypted virtual disks over NBD: `nbdcrypt serve` is the daemon, the rest are its clients.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"nbdcrypt/pkg/cli"
	"nbdcrypt/pkg/refusal"
)

func main() {
	// The first signal ends the work in good order; after it a second one does what signals do.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	hooks := cli.Hooks{Serve: serve, Demo: demo, Env: cli.Env{Getenv: os.Getenv, UID: os.Geteuid()}}
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, hooks))
}

func serve(context.Context, cli.ServeOptions, io.Writer, io.Writer) error {
	return refusal.New(refusal.Failed, "Build one that has it.", "this build has no daemon")
}

func demo(context.Context, io.Writer, io.Writer) error {
	return refusal.New(refusal.Failed, "Build one that has it.", "this build has no demo")
}
