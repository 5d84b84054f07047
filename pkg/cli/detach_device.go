package cli

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// detachDisk asks first whether the detach would be refused, and for a yes where it needs one: nothing is unmounted or disconnected for one
// that does not come.
func (a *app) detachDisk(cmd *cobra.Command, disk string, how control.DetachHow, force bool) (control.Detached, error) {
	asked, err := confirmed(a, cmd, how.Yes, func(ctx context.Context, c *control.Client, yes bool) (control.Detached, error) {
		how.Yes = yes
		return c.DetachAs(ctx, disk, control.DetachHow{Attachment: how.Attachment, Yes: yes, Ask: true})
	})
	if refusal.CodeOf(err) == refusal.Busy && a.machine.uid == 0 {
		return a.detachLeft(cmd, disk, force, err)
	}
	if err != nil {
		return asked, err
	}
	left := asked.Device != nil && a.machine.isLeft(*asked.Device, asked.DiskID)
	warnings, err := a.machine.letGo(cmd.Context(), asked, force)
	if err != nil {
		return asked, err
	}
	if left {
		warnings = append(warnings, *asked.Device+" had lost its keeper; the system's log may say how")
	}
	if asked.Device != nil {
		a.machine.awaitKeeper(cmd.Context(), *asked.Device)
	}
	if asked.Left > 0 {
		how.Attachment = asked.Attachment // the one that was let go
	}
	gone, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Detached, error) {
		return c.DetachAs(ctx, disk, how)
	})
	gone.Warnings = append(warnings, gone.Warnings...)
	return gone, err
}

// detachLeft disconnects the device of a disk that is not attached any more: its daemon and its keeper were both killed. Nobody can write what
// it still holds. Where there is none, why it can't be detached stays the answer.
func (a *app) detachLeft(cmd *cobra.Command, disk string, force bool, why error) (none control.Detached, err error) {
	d, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) { return c.DiskShow(ctx, disk) })
	if err != nil || len(d.Attachments) > 0 {
		return none, why
	}
	m, device := a.machine, a.machine.left(d.ID)
	if device == "" {
		return none, why
	}
	gone := control.Detached{Disk: d.Name, DiskID: d.ID, Device: &device,
		Warnings: []string{"the daemon had ended without it: what was not written to " + device + " by then is lost"}}
	if err := m.unused(cmd.Context(), gone); err != nil && !force {
		return none, err
	}
	err = m.disconnect(cmd.Context(), device)
	if errors.Is(err, blockdev.ErrHeld) {
		gone.Warnings, err = append(gone.Warnings, heldWarning(device)), nil
	}
	return gone, err
}

const (
	// keeperTime is how long a keeper may take to see that its device has gone.
	keeperTime = 5 * time.Second
	keeperStep = 20 * time.Millisecond
)

// awaitKeeper waits until nobody keeps a device any more, so that it can be connected anew.
func (m machine) awaitKeeper(ctx context.Context, device string) {
	ctx, stop := context.WithTimeout(ctx, keeperTime)
	defer stop()
	for {
		if kept, err := m.kept(device); err != nil || !kept {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keeperStep):
		}
	}
}

// devices are the network block devices that there are.
func devices() []string {
	list, _ := filepath.Glob("/dev/nbd*") // the pattern is a good one
	return slices.DeleteFunc(list, func(path string) bool { return !isDevice.MatchString(path) })
}
