package cli

import (
	"context"
	"io"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// attachHow is what an attach may be told.
type attachHow struct {
	control.Attach
	device             string
	connections        int
	timeout, reconnect time.Duration
	mount, fuse        string
	foreground         bool
}

func (a *app) attach() *cobra.Command {
	var how attachHow
	cmd := &cobra.Command{
		Use: "attach DISK", Short: "Make a disk readable on this host",
		Long: `Unwrap the disk's key and export the disk over NBD, until it is detached. The export opens for you, for root, and for
whom --allow names: a user of this machine, by name or uid; cert:NAME, who comes with a certificate in that name; or vsock:CID, a
virtual machine. A user's name stands for a certificate in that name too. Ready-made lines for nbd-client, QEMU and nbdfuse are printed.

With --device the kernel gets it as a block device, which needs root and the kernel's module nbd. A process stays behind as the device's
keeper: when the daemon restarts it has the disk attached again, where the key allows that, and the device goes on, with what is mounted
on it. Requests wait for that as long as --reconnect says, then they fail. --mount mounts the device's file system too, with nosuid and
nodev. SIGTERM to the keeper unmounts, disconnects and detaches, as detach does; --foreground is for service managers, which start it as
nbdcrypt-attach@DISK.service does. The same command again gives a device another keeper whose keeper was killed.

With --fuse the disk is shown as the file DIR/DISK, for you alone: that needs neither root nor the module, but nbdfuse (of Debian's package
libnbd-bin). It does not outlive the daemon's end: detach, and attach again.`,
		Example: "  nbdcrypt attach db1\n  nbdcrypt attach db1 --read-only --allow alice --allow cert:backup --allow vsock:3\n" +
			"  nbdcrypt attach db1 --device auto --mount /srv/db1\n  nbdcrypt attach db1 --fuse ~/disks",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := how.check(cmd); err != nil {
				return err
			}
			switch {
			case how.device != "":
				return a.attachDevice(cmd, args[0], how)
			case how.fuse != "":
				return a.attachFuse(cmd, args[0], how)
			}
			at, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Attached, error) {
				return c.Attach(ctx, args[0], how.Attach)
			})
			if err != nil {
				return err
			}
			return a.attached(cmd, at)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&how.ReadOnly, "read-only", false, "export it for reading only")
	flags.StringArrayVar(&how.Allow, "allow", nil, "who may open the export too: a user, cert:NAME or vsock:CID (may be repeated)")
	flags.StringVar(&how.device, "device", "", "connect it to this device of the kernel, /dev/nbdN, or to the first that is free: auto")
	flags.IntVar(&how.connections, "connections", 4, "how many connections the device has, 1 to 16")
	flags.DurationVar(&how.timeout, "timeout", 30*time.Second, "how long the kernel waits for an answer before it sends the request over another connection")
	flags.DurationVar(&how.reconnect, "reconnect", 5*time.Minute, "how long requests wait for a daemon that has gone; 0s: not at all")
	flags.StringVar(&how.mount, "mount", "", "mount the device's file system at this directory")
	flags.BoolVar(&how.foreground, "foreground", false, "stay in the foreground as the device's keeper")
	flags.StringVar(&how.fuse, "fuse", "", "show it as a file in this directory, by nbdfuse")
	cmd.MarkFlagsMutuallyExclusive("device", "fuse")
	_ = cmd.RegisterFlagCompletionFunc("allow", completeUser) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("device", a.completeDevice)
	for _, name := range []string{"mount", "fuse"} {
		_ = cmd.MarkFlagDirname(name)
	}
	return cmd
}

var isDevice = regexp.MustCompile(`^/dev/nbd[0-9]{1,5}$`)

// maxConnections is as many as the kernel makes use of on large machines.
const maxConnections = 16

func (how attachHow) check(cmd *cobra.Command) error {
	for _, name := range []string{"device", "mount", "fuse"} {
		if f := cmd.Flag(name); f.Changed && f.Value.String() == "" {
			return usage(cmd, "--%s is empty", name)
		}
	}
	for _, name := range []string{"connections", "timeout", "reconnect", "mount", "foreground"} {
		if cmd.Flag(name).Changed && how.device == "" {
			return usage(cmd, "--%s goes with --device", name)
		}
	}
	switch {
	case how.device != "" && how.device != auto && !isDevice.MatchString(how.device):
		return usage(cmd, "--device is auto or /dev/nbdN, not %q", how.device)
	case how.connections < 1 || how.connections > maxConnections:
		return usage(cmd, "--connections is 1 to %d, not %d", maxConnections, how.connections)
	case how.timeout < time.Second || how.timeout%time.Second != 0:
		return usage(cmd, "--timeout is in whole seconds, at least 1s, not %v", how.timeout)
	case how.reconnect < 0 || how.reconnect%time.Second != 0:
		return usage(cmd, "--reconnect is in whole seconds, not %v", how.reconnect)
	}
	return nil
}

// attached prints what an attach came to.
func (a *app) attached(cmd *cobra.Command, at control.Attached) error {
	a.warn(cmd, at.Warnings)
	return a.result(cmd, at, func(w io.Writer) { printAttached(w, at) })
}
