package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// goneTime is how long a device may take to be gone after its connection has ended.
const goneTime = 3 * time.Second

// ErrHeld tells that the connection of a device has ended and the device stays, because somebody has it open.
var ErrHeld = errors.New("it is still open")

// Disconnect ends the connection of the device, if it is ours still; see the function of that name.
func (d *Device) Disconnect(ctx context.Context) error {
	if name, is, err := Backend(d.config.Path); err != nil || !is || name != d.config.Identifier {
		return err
	}
	return Disconnect(ctx, d.config.Path)
}

// Disconnect ends the connection of a device and waits until it is gone. Whoever uses it gets errors: Users tells who does, before.
// One that is not connected is no error.
func Disconnect(ctx context.Context, path string) error {
	index, err := indexOf(path)
	if err != nil {
		return err
	}
	if is, err := here.connected(path); err != nil || !is {
		return err
	}
	data, err := disconnectMessage(index)
	if err != nil {
		return fmt.Errorf("disconnecting %s: %w", path, err)
	}
	if err := once(ctx, cmdDisconnect, data); err != nil {
		return refused(path, "disconnecting", err)
	}
	return here.gone(ctx, path)
}

func (h host) gone(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	err := wait(ctx, path, func() (bool, error) {
		is, err := h.connected(path)
		return !is, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s has no connection any more: %w", path, ErrHeld)
	}
	return err
}

// Sync has the kernel write all that it holds for a device, have the server flush it, and forget what it has read.
func Sync(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing %s: %w", path, err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKFLSBUF, 0); errno != 0 {
		return fmt.Errorf("flushing %s: %w", path, errno)
	}
	return nil
}
