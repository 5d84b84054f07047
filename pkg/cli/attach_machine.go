package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/keeper"
	"nbdcrypt/pkg/mounts"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

// machine is what attach, detach and servers do to this machine beside asking the daemon. Tests have one of their own.
type machine struct {
	uid        int
	free       func() (string, error)
	backend    func(device string) (identifier string, connected bool, err error)
	connect    func(context.Context, blockdev.Config) (keeper.Device, error)
	adopt      func(context.Context, blockdev.Config) (keeper.Device, error)
	noted      func(device string) (string, error)
	disconnect func(ctx context.Context, device string) error
	users      func(device string) ([]string, error)
	sync       func(device string) error
	kept       func(device string) (bool, error)
	devices    func() []string
	keep       func(context.Context, keeper.Options) error

	place       func(dir string) (string, error)
	point       func(dir string) (string, error)
	safe        func(place string, uid int) error
	mounted     func(dir string) (*mounts.Mounted, error)
	mount       func(ctx context.Context, device, dir string, readOnly bool) error
	unmount     func(ctx context.Context, dir string) error
	fuse        func(ctx context.Context, uri, dir, name string, readOnly bool) error
	unmountFuse func(ctx context.Context, dir string, lazy bool) error

	// qemu refuses where servers can't be run here; raw has a terminal hand over each key as it is pressed, until back.
	qemu      func() error
	runServer func(context.Context, vm.Options) error
	console   func(ctx context.Context, path string, in io.Reader, out io.Writer, log bool) error
	raw       func(in io.Reader) (back func(), err error)
}

func theMachine(uid int) machine {
	return machine{uid: uid, free: blockdev.Free, backend: blockdev.Backend, disconnect: blockdev.Disconnect, users: blockdev.Users, sync: blockdev.Sync, kept: blockdev.Kept, devices: devices, keep: keeper.Run,
		connect: func(ctx context.Context, c blockdev.Config) (keeper.Device, error) {
			d, err := blockdev.Connect(ctx, c)
			if err == nil {
				blockdev.Announce(c.Path)
			}
			return d, err
		},
		adopt: func(ctx context.Context, c blockdev.Config) (keeper.Device, error) { return blockdev.Adopt(ctx, c) }, noted: blockdev.Noted,
		place: mounts.Place, point: mounts.Point, safe: mounts.Safe, mounted: mounts.At, mount: mounts.Mount, unmount: mounts.Unmount, fuse: mounts.Fuse, unmountFuse: mounts.UnmountFuse,
		qemu:      func() error { _, err := vm.Find(); return err },
		runServer: vm.Run, console: vm.Console, raw: raw}
}

// forceTime is how long a step may take that is not waited for where force is used: over a link that is dead it would not end.
const forceTime = 10 * time.Second

// letGo takes away what the attachment that is about to end has on this machine: its mount, then its device, with all written before. What
// is in use stays, and is refused, unless forced; what can't be done then is a warning.
func (m machine) letGo(ctx context.Context, of control.Detached, force bool) (warnings []string, err error) {
	if of.Device == nil {
		return m.letGoFuse(ctx, of, force)
	}
	if m.uid != 0 {
		return nil, refusal.New(refusal.Denied, "run it as root", "disk %s is connected to %s, which only root disconnects", of.Disk, *of.Device)
	}
	identifier, connected, err := m.backend(*of.Device)
	if err != nil {
		return nil, err
	}
	if !connected || !strings.HasPrefix(identifier, identifierOf(of.DiskID)) {
		return nil, nil // it has gone, and is another's now perhaps
	}
	for _, step := range []func(context.Context, control.Detached) error{m.unmountDevice, m.unused, m.flush} {
		err := within(ctx, force, func() error { return step(ctx, of) })
		if err != nil && !force {
			return nil, err
		}
		if err != nil {
			warnings = append(warnings, "forced: "+err.Error())
		}
	}
	err = m.disconnect(ctx, *of.Device)
	if errors.Is(err, blockdev.ErrHeld) {
		return append(warnings, heldWarning(*of.Device)), nil
	}
	return warnings, err
}

func heldWarning(device string) string {
	return device + " is disconnected, and gives errors to who still has it open"
}

// within waits for a step as long as ctx lives, and where force is used no longer than that may take.
func within(ctx context.Context, force bool, step func() error) error {
	if force {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, forceTime, fmt.Errorf("not done within %v", forceTime))
		defer stop()
	}
	done := make(chan error, 1)
	go func() { done <- step() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unmountDevice unmounts what attach has mounted. Whoever unmounted it himself, or mounted something else there, is left alone.
func (m machine) unmountDevice(ctx context.Context, of control.Detached) error {
	if of.Mount == "" {
		return nil
	}
	at, err := m.mounted(of.Mount)
	if err != nil || at == nil || at.Source != *of.Device {
		return err
	}
	return m.unmount(ctx, of.Mount)
}

func (m machine) unused(_ context.Context, of control.Detached) error {
	users, err := m.users(*of.Device)
	if err != nil || len(users) == 0 {
		return err
	}
	return refusal.New(refusal.Busy, "unmount it, or end what uses it; --force disconnects it all the same, and what is not written yet is lost",
		"disk %s is in use: %s", of.Disk, strings.Join(users, "; "))
}

func (m machine) flush(_ context.Context, of control.Detached) error { return m.sync(*of.Device) }

// letGoFuse unmounts the directory in which the disk is a file, if it is that of whoever attached the disk. Others than he and root can't.
func (m machine) letGoFuse(ctx context.Context, of control.Detached, force bool) (warnings []string, err error) {
	if of.Mount == "" {
		return nil, nil
	}
	at, err := m.mounted(of.Mount)
	if err != nil || at == nil || at.Owner == nil || !isUser(of.By, *at.Owner) {
		return nil, err
	}
	if m.uid != 0 && uint32(m.uid) != *at.Owner {
		return []string{of.Mount + " stays mounted; " + of.By + " unmounts it with `fusermount3 -u " + of.Mount + "`"}, nil
	}
	return nil, m.unmountFuse(ctx, of.Mount, force)
}

// isUser tells whether somebody whom the daemon calls so has that uid.
func isUser(name string, uid uint32) bool {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.Lookup(name)
	return name == id || err == nil && u.Uid == id
}
