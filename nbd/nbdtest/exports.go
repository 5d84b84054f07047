package nbdtest

import (
	"context"
	"sync"

	"nbdcrypt/nbd"
)

// Exports is a fixed set of exports, open to everyone but for those in Denied.
type Exports struct {
	mu     sync.Mutex
	order  []*nbd.Export
	Denied map[string]bool
}

// NewExports makes a set.
func NewExports(exports ...*nbd.Export) *Exports {
	return &Exports{order: exports, Denied: map[string]bool{}}
}

// List names what is open to everyone.
func (x *Exports) List(context.Context, nbd.Peer) ([]nbd.Info, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var infos []nbd.Info
	for _, e := range x.order {
		if !x.Denied[e.Name()] {
			infos = append(infos, nbd.Info{Name: e.Name(), Description: "for tests"})
		}
	}
	return infos, nil
}

// Open finds an export; the empty name is the only one.
func (x *Exports) Open(_ context.Context, _ nbd.Peer, name string) (*nbd.Export, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.Denied[name] {
		return nil, nbd.ErrPolicy
	}
	for _, e := range x.order {
		if e.Name() == name || name == "" && len(x.order) == 1 {
			return e, nil
		}
	}
	return nil, nbd.ErrUnknownExport
}
