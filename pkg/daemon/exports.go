package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/volume"
)

// exports are the attached disks as the NBD server sees them: each opens for whom it is meant and is hidden from others.
type exports struct {
	mu     sync.Mutex
	byDisk map[uuid.UUID]*exported
	byName map[string]*exported
}

// exported is one export with who may open it.
type exported struct {
	of     *volume.Attachment
	export *nbd.Export
	// leased tells that a server's run has the disk. Its export has a secret name, which is in no list: a QEMU whose run is over finds none.
	leased bool
	// openings are one for each attachment of the disk; exports.mu guards them.
	openings []opening
}

// nameless is an error without the name of the export, where that is secret.
func (e *exported) nameless(err error) error {
	if !e.leased {
		return err
	}
	if cause := errors.Unwrap(err); cause != nil {
		return cause
	}
	return errors.New("its clients do not end")
}

// opening is whom one attachment opens the export to.
type opening struct {
	share      uuid.UUID
	attacher   uint32
	allow      []access.Guest
	allowNames []string
}

func newExports() *exports {
	return &exports{byDisk: map[uuid.UUID]*exported{}, byName: map[string]*exported{}}
}

// add opens the export of a disk, which is made for the first of its attachments.
func (x *exports) add(a *volume.Attachment, o opening) {
	x.addAs(a, control.ExportName(a.Project, a.Name), false, o)
}

// lend opens the export of a disk under a secret name to who runs a server on it. By its own name nobody opens it meanwhile.
func (x *exports) lend(a *volume.Attachment, name string, to uint32) {
	x.addAs(a, name, true, opening{attacher: to})
}

func (x *exports) addAs(a *volume.Attachment, name string, leased bool, o opening) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byDisk[a.Disk]
	if e == nil {
		e = &exported{of: a, leased: leased}
		e.export = x.exportOf(e, name)
		x.byDisk[a.Disk], x.byName[name] = e, e
	}
	e.openings = append(e.openings, o)
}

// leave shuts the export for those whom that attachment alone opened it to, and tells how many connections end because of it.
func (x *exports) leave(a *volume.Attachment, share uuid.UUID) (clients int) {
	x.mu.Lock()
	e := x.byDisk[a.Disk]
	if e != nil {
		e.openings = slices.DeleteFunc(e.openings, func(o opening) bool { return o.share == share })
	}
	x.mu.Unlock()
	if e == nil {
		return 0
	}
	return e.export.Review()
}

// allowed names whom an attachment opens the export to.
func (x *exports) allowed(e *exported, share uuid.UUID) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range e.openings {
		if o.share == share {
			return append([]string{}, o.allowNames...)
		}
	}
	return []string{}
}

// mayOpen tells whether an attachment opens the export to somebody. The caller holds the lock.
func (e *exported) mayOpen(who access.Guest) bool {
	return slices.ContainsFunc(e.openings, func(o opening) bool { return access.MayOpen(who, o.attacher, o.allow) })
}

// exportOf makes the export of an attached disk. Who opened it has to be somebody to whom it is open as long as the connection lasts.
func (x *exports) exportOf(e *exported, name string) *nbd.Export {
	return nbd.NewExport(name, e.of.Device, nbd.Options{ReadOnly: e.of.ReadOnly,
		Admits: func(peer nbd.Peer) bool {
			who := access.Arrived(peer.UID, peer.Name)
			x.mu.Lock()
			defer x.mu.Unlock()
			return e.mayOpen(who)
		}})
}

func (x *exports) get(a *volume.Attachment) *exported {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byDisk[a.Disk]
}

// all are the exports that are there now, in no order.
func (x *exports) all() []*exported {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Values(x.byName))
}

func (x *exports) remove(a *volume.Attachment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.byDisk[a.Disk]; e != nil {
		delete(x.byName, e.export.Name())
		delete(x.byDisk, a.Disk)
	}
}

// open lists what a peer may open and find, by name.
func (x *exports) open(peer nbd.Peer) (list []*nbd.Export) {
	who := access.Arrived(peer.UID, peer.Name)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.byName {
		if e.mayOpen(who) && !e.leased {
			list = append(list, e.export)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list
}

// List implements nbd.Exports.
func (x *exports) List(_ context.Context, peer nbd.Peer) ([]nbd.Info, error) {
	var infos []nbd.Info
	for _, e := range x.open(peer) {
		infos = append(infos, nbd.Info{Name: e.Name()})
	}
	return infos, nil
}

// Open implements nbd.Exports. The empty name is the only disk that the peer may open, if there is just one.
func (x *exports) Open(_ context.Context, peer nbd.Peer, name string) (*nbd.Export, error) {
	if name == "" {
		if list := x.open(peer); len(list) == 1 {
			return list[0], nil
		}
		return nil, nbd.ErrUnknownExport
	}
	who := access.Arrived(peer.UID, peer.Name)
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byName[name]
	switch {
	case e == nil:
		return nil, nbd.ErrUnknownExport
	case !e.mayOpen(who):
		return nil, nbd.ErrPolicy
	}
	return e.export, nil
}
