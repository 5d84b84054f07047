package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"nbdcrypt/pkg/refusal"
)

// answerTime is how long the kernel may take to answer. A disconnect waits for its receivers, which end at once.
const answerTime = 30 * time.Second

// kernel is a netlink connection to the driver.
type kernel struct {
	conn   *genetlink.Conn
	family uint16
}

// dial reaches the driver, which is loaded where it is not there.
func dial(ctx context.Context) (*kernel, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for %s: %w", familyName, err)
	}
	family, err := conn.GetFamily(familyName)
	if errors.Is(err, os.ErrNotExist) {
		if err = load(ctx); err == nil {
			family, err = conn.GetFamily(familyName)
		}
	}
	if err != nil {
		return nil, errors.Join(noDriver(err), conn.Close())
	}
	return &kernel{conn, family.ID}, nil
}

// load has the module loaded by the system's own tool, which knows where modules are and which options an administrator gave.
func load(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return refusal.New(refusal.Denied, "run it as root", "network block devices need root")
	}
	out, err := exec.CommandContext(ctx, "modprobe", "nbd").CombinedOutput()
	if err != nil {
		return fmt.Errorf("modprobe nbd: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func noDriver(err error) error {
	if refusal.CodeOf(err) == refusal.Denied {
		return err
	}
	return refusal.New(refusal.Failed, "load the kernel's module with `modprobe nbd`, on the host where this is a container; without it attach with --fuse DIR, "+
		"or without --device for QEMU and others", "this kernel has no network block devices: %w", err)
}

// do sends a command and waits for the kernel's word on it.
func (k *kernel) do(command uint8, data []byte) error {
	if err := k.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	message := genetlink.Message{Header: genetlink.Header{Command: command, Version: familyVersion}, Data: data}
	_, err := k.conn.Execute(message, k.family, netlink.Request|netlink.Acknowledge)
	return err
}

func (k *kernel) close() { _ = k.conn.Close() }

// once runs one command on a connection of its own.
func once(ctx context.Context, command uint8, data []byte) error {
	k, err := dial(ctx)
	if err != nil {
		return err
	}
	defer k.close()
	return k.do(command, data)
}

// refused makes the kernel's answer to a command about a device a refusal.
func refused(path, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM):
		return refusal.New(refusal.Denied, "run it as root", "%s %s needs root", doing, path)
	case errors.Is(err, syscall.EBUSY):
		return refusal.New(refusal.Busy, "name another with --device, or let --device auto choose", "%s is connected already: %w", path, err)
	}
	return refusal.New(refusal.Failed, "`dmesg` may say more", "%s %s: %w", doing, path, err)
}
