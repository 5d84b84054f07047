package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/keeper"
	"nbdcrypt/pkg/refusal"
)

// isLeft tells whether a device is connected to the disk of that id, and has no keeper any more. Who may not know does not.
func (m machine) isLeft(device, diskID string) bool {
	identifier, connected, err := m.backend(device)
	if err != nil || !connected || !strings.HasPrefix(identifier, identifierOf(diskID)) {
		return false
	}
	kept, err := m.kept(device)
	return err == nil && !kept
}

// left is such a device of a disk, empty where there is none.
func (m machine) left(diskID string) string {
	list := m.devices()
	if i := slices.IndexFunc(list, func(device string) bool { return m.isLeft(device, diskID) }); i >= 0 {
		return list[i]
	}
	return ""
}

// lonely are warnings of devices of a disk that have no keeper.
func (m machine) lonely(d control.Disk) (warnings []string) {
	for _, at := range d.Attachments {
		if at.Device != nil && m.isLeft(*at.Device, d.ID) {
			warnings = append(warnings, fmt.Sprintf("%s has no keeper: it would not go on when the daemon restarts; `nbdcrypt attach %s --device auto` as root starts one", *at.Device, d.Name))
		}
	}
	return warnings
}

// adopt keeps the device of a disk whose keeper was killed, if there is one. It goes on with the attachment that it was connected for, or not
// at all: what is mounted on it would write what it remembers over something else.
func (k *kept) adopt(ctx context.Context, d control.Disk) (is bool, err error) {
	path := k.machine.left(d.ID)
	if path == "" {
		return false, nil
	}
	line, err := k.machine.noted(path)
	if err != nil {
		return false, err
	}
	note := keeper.ReadNote(line)
	i := slices.IndexFunc(d.Attachments, func(at control.Attachment) bool { return at.ID == note.Attachment })
	if i < 0 {
		detach := "nbdcrypt detach " + quote(d.Name)
		if len(d.Attachments) == 0 {
			detach += " --force" // without it whoever uses the device, or unmounts it, waits for a daemon that does not come
		}
		return false, refusal.New(refusal.Busy, "end that with `"+detach+"`, unmount what is on it, attach it again, and check its file system",
			"%s is still there from an attachment of disk %s that has ended, and has no keeper", path, d.Name)
	}
	at := d.Attachments[i]
	if err := k.asBefore(d.Name, path, at); err != nil {
		return false, err
	}
	export, socket, err := control.ParseURI(at.URI)
	if err != nil {
		return false, err
	}
	identifier, _, err := k.machine.backend(path)
	if err != nil {
		return false, err
	}
	k.how.Attach = control.Attach{ReadOnly: at.ReadOnly, Allow: at.Allow, Device: path, Mount: at.Mount}
	k.at = control.Attached{Disk: d.Name, DiskID: d.ID, Attachment: at.ID, Epoch: note.Epoch, Export: export, URI: at.URI, Device: &path, Mount: at.Mount, ReadOnly: at.ReadOnly,
		Warnings: []string{"disk " + d.Name + " was attached; " + path + " had lost its keeper, and has one again"}}
	k.device, err = k.machine.adopt(ctx, blockdev.Config{Socket: socket, Export: export, Path: path, Timeout: k.how.timeout, Reconnect: k.how.reconnect,
		BlockSize: d.SectorSize, Identifier: identifier})
	if err == nil && k.how.mount != "" {
		err = k.mountAgain(ctx, path)
	}
	k.adopted = true
	return true, err
}

// asBefore refuses to go on with an attachment in another way than it was made.
func (k *kept) asBefore(disk, path string, at control.Attachment) error {
	mount := at.Mount
	if k.how.mount != "" {
		var err error
		if mount, err = k.machine.place(k.how.mount); err != nil {
			return err
		}
	}
	slices.Sort(at.Allow)
	allow := slices.Sorted(slices.Values(k.how.Allow))
	if (k.how.device == auto || k.how.device == path) && mount == at.Mount && k.how.ReadOnly == at.ReadOnly && (len(allow) == 0 || slices.Equal(allow, at.Allow)) {
		return nil
	}
	return refusal.New(refusal.Busy, "attach it as it was, to get the device a keeper again, or detach it first", "disk %s is attached with %s, which has lost its keeper, in another way", disk, path)
}

// mountAgain mounts what is not mounted any more.
func (k *kept) mountAgain(ctx context.Context, path string) error {
	m, err := k.machine.mounted(k.how.Mount)
	switch {
	case err != nil:
		return err
	case m == nil:
		return k.machine.mount(ctx, path, k.how.Mount, k.how.ReadOnly)
	case m.Source != path:
		return refusal.New(refusal.Busy, "unmount that first", "%s is mounted at %s", m.Source, k.how.Mount)
	}
	return nil
}
