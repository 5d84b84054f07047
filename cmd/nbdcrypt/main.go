// Command nbdcrypt exports encrypted virtual disks over NBD: `nbdcrypt serve` is the daemon, the rest are its clients.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/cli"
	"nbdcrypt/pkg/daemon"
	"nbdcrypt/pkg/demo"
)

func main() {
	if child.Main() {
		return
	}
	// The first signal ends the work in good order; after it a second one does what signals do.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	hooks := cli.Hooks{Serve: serve, Demo: demo.Run, Env: cli.Env{Getenv: os.Getenv, UID: os.Geteuid()}}
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, hooks))
}

func serve(ctx context.Context, o cli.ServeOptions, stdout, stderr io.Writer) error {
	return daemon.Run(ctx, daemon.Options{
		State: o.State, Run: o.Run, Pool: o.Pool, RootKey: o.RootKey, Region: o.Region, Listen: o.Listen,
		Version: cli.BuildVersion().Version, Log: slog.New(slog.NewTextHandler(stderr, nil)),
		Ready: func(uri string) { fmt.Fprintln(stdout, "ready", uri) },
	})
}
