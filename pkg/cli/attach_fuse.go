package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/mounts"
)

// attachFuse attaches a disk and shows it as a file.
func (a *app) attachFuse(cmd *cobra.Command, disk string, how attachHow) error {
	err := mounts.HaveFuse()
	if err != nil {
		return err
	}
	if how.Mount, err = a.machine.point(how.fuse); err != nil {
		return err
	}
	at, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Attached, error) {
		at, err := c.Attach(ctx, disk, how.Attach)
		if err != nil {
			return at, err
		}
		if err := a.machine.fuse(ctx, at.URI, at.Mount, at.Disk, at.ReadOnly); err != nil {
			_, undone := c.DetachAs(context.WithoutCancel(ctx), disk, control.DetachHow{Attachment: at.Attachment, Yes: true})
			return at, errors.Join(err, undone)
		}
		return at, nil
	})
	if err != nil {
		return err
	}
	return a.attached(cmd, at)
}

// fuseFile is the file that a disk is shown as, empty where it is not.
func fuseFile(disk string, device *string, mount string) string {
	if device != nil || mount == "" {
		return ""
	}
	return filepath.Join(mount, disk)
}
