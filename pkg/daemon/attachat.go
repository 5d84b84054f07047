package daemon

import (
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// maxPath is how long a path may be for the kernel.
const maxPath = 4096

// mayBeAt refuses what an attachment can't be said to be at. A later detach acts on the device as root, so nobody else names one: it
// might be another's.
func mayBeAt(c *call, in control.Attach) error {
	number, isNBD := strings.CutPrefix(in.Device, "/dev/nbd")
	switch {
	case in.Device != "" && c.caller.UID != 0:
		return refusal.New(refusal.Denied, "run it as root, or leave the device out", "only root connects a disk to a device of the kernel")
	case in.Device != "" && (!isNBD || number == "" || len(number) > 6 || strings.Trim(number, "0123456789") != ""):
		return refusal.New(refusal.Usage, "name one like /dev/nbd0", "%.100q is no NBD device", in.Device)
	case in.Mount != "" && (!filepath.IsAbs(in.Mount) || filepath.Clean(in.Mount) != in.Mount || len(in.Mount) >= maxPath || strings.Contains(in.Mount, "\x00")):
		return refusal.New(refusal.Usage, "name it by its whole path, without . and ..", "%.100q is no directory to mount at", in.Mount)
	}
	return nil
}

// mayEnd refuses to take a disk away from who could not do without it: a kernel, or a server.
func (d *Daemon) mayEnd(c *call, a *volume.Attachment, of volume.Share) error {
	if err := d.heldByServer(a); err != nil {
		return err
	}
	return d.connected(c, a, of)
}

// connected refuses to take a disk away from a device of the kernel, which would make errors of what it still has to write. Root is trusted to
// know: the command line disconnects the device before.
func (d *Daemon) connected(c *call, a *volume.Attachment, of volume.Share) error {
	if e := d.exports.get(a); of.Device == "" || c.caller.UID == 0 || e == nil || e.export.Clients() == 0 {
		return nil
	}
	return refusal.New(refusal.Busy, "run `nbdcrypt detach` as root, which disconnects the device first", "disk %s is connected to %s", a.Name, of.Device)
}

// continues reads which attachment another one is to go on from.
func continues(in *control.Continues) (*volume.Continues, error) {
	if in == nil {
		return nil, nil
	}
	id, err := uuid.Parse(in.DiskID)
	if err != nil {
		return nil, refusal.New(refusal.Usage, "give the disk_id and the epoch of an earlier attach", "%.100q is no id of a disk", in.DiskID)
	}
	return &volume.Continues{Disk: id, Epoch: in.Epoch}, nil
}

// deviceOf is a device as the API shows it: null where there is none.
func deviceOf(path string) *string {
	if path == "" {
		return nil
	}
	return &path
}
