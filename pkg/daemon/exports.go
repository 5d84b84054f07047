package daemon

import (
	"context"
	"maps"
	"slices"
	"sort"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
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
	of         *volume.Attachment
	export     *nbd.Export
	attacher   uint32
	allow      []access.Guest
	allowNames []string
}

func newExports() *exports {
	return &exports{byDisk: map[uuid.UUID]*exported{}, byName: map[string]*exported{}}
}

func (x *exports) add(a *volume.Attachment, attacher uint32, allow []access.Guest, names []string) {
	e := &exported{of: a, export: exportOf(a), attacher: attacher, allow: allow, allowNames: names}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byDisk[a.Disk], x.byName[e.export.Name()] = e, e
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

// open lists what a peer may open, by name.
func (x *exports) open(peer nbd.Peer) (list []*nbd.Export) {
	who := access.Arrived(peer.UID, peer.Name)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.byName {
		if access.MayOpen(who, e.attacher, e.allow) {
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
	case !access.MayOpen(who, e.attacher, e.allow):
		return nil, nbd.ErrPolicy
	}
	return e.export, nil
}
