// Command nbdcrypt exports encrypted virtual disks over NBD: `nbdcrypt serve` is the daemon, the rest are its clients.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/bench/seed"
	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/cli"
	"nbdcrypt/pkg/daemon"
	"nbdcrypt/pkg/demo"
)

// init keeps the main thread for the main goroutine. Signals go there if they can, and so save no registers of a thread that works
// on keys (see pkg/shield).
func init() { runtime.LockOSThread() }

func main() {
	if demo.Guest() || child.Main() || iobench.Main() {
		return
	}
	// The first signal ends the work in good order; after it a second one does what signals do.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	fill := func(ctx context.Context, what iobench.Fill) error { return seed.Fill(ctx, seed.Options(what)) }
	tour := func(ctx context.Context, o cli.DemoOptions, stdout, stderr io.Writer) error {
		return demo.Run(ctx, demo.Options(o), stdout, stderr)
	}
	hooks := cli.Hooks{Serve: serve, Demo: tour, Fill: fill, Env: cli.Env{Getenv: os.Getenv, UID: os.Geteuid()}}
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, hooks))
}

// serve leaves the main thread idle.
func serve(ctx context.Context, o cli.ServeOptions, stdout, stderr io.Writer) error {
	ended := make(chan error)
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{
			State: o.State, Run: o.Run, Pool: o.Pool, Backups: o.Backups, RootKey: o.RootKey, Region: o.Region, Listen: o.Listen, Metrics: o.Metrics, ReplaceAuditLog: o.ReplaceAuditLog, Hook: o.Hook, NotifyDays: o.NotifyDays, KeyMemory: o.KeyMemory,
			TLSCert: o.TLSCert, TLSKey: o.TLSKey, TLSCA: o.TLSCA, InsecureLoopback: o.InsecureLoopback,
			Clock: machineClock(), Version: cli.BuildVersion().Version, Log: slog.New(slog.NewTextHandler(stderr, nil)),
			Ready: func(uri string) { fmt.Fprintln(stdout, "ready", uri) },
		})
	}()
	return <-ended
}
