package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/keeper"
	"nbdcrypt/pkg/refusal"
)

const (
	auto = "auto"
	// autoTries is how many devices auto tries that somebody else takes meanwhile.
	autoTries = 8
)

// attachDevice attaches a disk, connects the kernel to it, and stays as the device's keeper. Without --foreground another process does all
// that, and this one tells how it went.
func (a *app) attachDevice(cmd *cobra.Command, disk string, how attachHow) error {
	if a.hooks.Env.UID != 0 {
		return refusal.New(refusal.Denied, "run it as root, or use --fuse DIR, which needs no root", "only root connects a disk to a device of the kernel")
	}
	parent, isChild := a.parent()
	if !how.foreground && !isChild {
		return a.keeperBehind(cmd)
	}
	k, err := a.connect(cmd.Context(), disk, how)
	if isChild {
		return parent.keep(cmd, k, err)
	}
	if err != nil {
		return err
	}
	if err := a.attached(cmd, k.at); err != nil {
		return errors.Join(err, k.undo(cmd.Context()))
	}
	loud := newVoice(func(text string) { a.say(cmd, "%s", text) })
	defer loud.close()
	k.say = loud.say
	notify("READY=1\nSTATUS=disk " + k.at.Disk + " is " + k.device.Path())
	return k.keep(cmd.Context())
}

// kept is a disk that is attached and connected to a device.
type kept struct {
	machine machine
	client  *control.Client
	daemon  keeper.Daemon
	how     attachHow
	at      control.Attached
	device  keeper.Device
	adopted bool // the disk was attached and connected before
	say     func(format string, args ...any)
}

// connect does all that comes before keeping; where it fails nothing of it stays.
func (a *app) connect(ctx context.Context, disk string, how attachHow) (*kept, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	client = client.OfOneOwner()
	status, err := client.Status(ctx, false)
	if err != nil {
		return nil, err
	}
	d, err := client.DiskShow(ctx, disk)
	if err != nil {
		return nil, err
	}
	k := &kept{machine: a.machine, client: client, daemon: keeper.DaemonOf(status), how: how}
	if is, err := k.adopt(ctx, d); is || err != nil {
		return k, err
	}
	if how.mount != "" {
		if k.how.Mount, err = k.machine.point(how.mount); err == nil {
			err = k.machine.safe(k.how.Mount, k.machine.uid)
		}
		if err != nil {
			return nil, err
		}
	}
	for n := 1; ; n++ {
		err := k.try(ctx, disk, d.SectorSize)
		if err == nil {
			break
		}
		if how.device != auto || n == autoTries || !errors.Is(err, syscall.EBUSY) {
			return nil, err
		}
	}
	if mount := k.how.Mount; mount != "" {
		if err := k.machine.mount(ctx, k.device.Path(), mount, how.ReadOnly); err != nil {
			return nil, errors.Join(err, k.undo(ctx))
		}
	}
	return k, nil
}

// try attaches the disk and connects one device.
func (k *kept) try(ctx context.Context, disk string, sectorSize int) (err error) {
	if k.how.Device = k.how.device; k.how.device == auto {
		if k.how.Device, err = k.machine.free(); err != nil {
			return err
		}
	}
	if k.at, err = k.client.Attach(ctx, disk, k.how.Attach); err != nil {
		return err
	}
	export, socket, err := control.ParseURI(k.at.URI)
	if err == nil {
		k.device, err = k.machine.connect(ctx, blockdev.Config{Socket: socket, Export: export, Path: k.how.Device, Connections: k.how.connections,
			Timeout: k.how.timeout, Reconnect: k.how.reconnect, BlockSize: sectorSize, Identifier: newIdentifier(k.at.DiskID)})
	}
	if err != nil {
		return errors.Join(err, k.detach(ctx))
	}
	return nil
}

// newIdentifier names a connection to the kernel so that nobody takes another one's for it.
func newIdentifier(diskID string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return identifierOf(diskID) + hex.EncodeToString(b[:])
}

// identifierOf is how the names of all connections of a disk begin.
func identifierOf(diskID string) string { return "nbdcrypt:" + diskID + ":" }

// keep stays until the device is disconnected.
func (k *kept) keep(ctx context.Context) error {
	return k.machine.keep(ctx, keeper.Options{Client: k.client, Disk: k.at.Disk, How: k.how.Attach, At: k.at, Daemon: k.daemon, Device: k.device,
		Reconnect: k.how.reconnect, End: k.end, Say: k.say})
}

// end takes it all back when a signal asks for it. A disk that could not be attached again stays attached: nobody is there to say yes.
func (k *kept) end(ctx context.Context) error {
	notify("STOPPING=1")
	warnings, err := k.machine.letGo(ctx, detached(k.at), false)
	for _, warning := range warnings {
		k.say("%s", warning)
	}
	if err != nil {
		return err
	}
	d, err := k.client.DiskShow(ctx, k.at.Disk)
	i := slices.IndexFunc(d.Attachments, func(at control.Attachment) bool { return at.Device != nil && *at.Device == k.device.Path() })
	if err == nil && i < 0 {
		return nil // somebody was faster
	}
	if err == nil {
		_, err = k.client.DetachAs(ctx, k.at.Disk, control.DetachHow{Attachment: d.Attachments[i].ID})
	}
	if r := refusal.From(err); r != nil {
		k.say("%s is disconnected, and disk %s stays attached: %s; %s", k.device.Path(), k.at.Disk, r.Message, r.Hint)
	}
	return nil
}

// undo takes back what was done for an attach that then failed.
func (k *kept) undo(ctx context.Context) error {
	if k.adopted {
		return nil
	}
	_, err := k.machine.letGo(context.WithoutCancel(ctx), detached(k.at), true)
	return errors.Join(err, k.detach(ctx))
}

func (k *kept) detach(ctx context.Context) error {
	_, err := k.client.DetachAs(context.WithoutCancel(ctx), k.at.Disk, control.DetachHow{Attachment: k.at.Attachment, Yes: true})
	return err
}

// detached names the same attachment as the detach that ends it does.
func detached(at control.Attached) control.Detached {
	return control.Detached{Disk: at.Disk, DiskID: at.DiskID, Device: at.Device, Mount: at.Mount}
}
