package daemon

import (
	"slices"
	"time"

	"nbdcrypt/pkg/control"
)

// The states of a key, as they are printed.
const (
	enabled         = "Enabled"
	disabled        = "Disabled"
	pendingDeletion = "Pending deletion"
	pendingImport   = "Pending import"
)

// rulebook is what the rules say there is. Nothing of it is asked of the daemon, but for ids and dates.
type rulebook struct {
	granted bool
	seen    seen
	rights
	byDefault byDefault
	locked    bool
	keys      []*modelKey  // the oldest first; destroyed ones too
	disks     []*modelDisk // those that are there
}

type modelKey struct {
	id, alias string
	isDefault bool
	state     string
	gone      bool
	created   time.Time
	versions  int
	imported  bool
	broughtIn
	rotation rotation
	deletion *time.Time
	text     string
	tags     map[string]string
	grants   []modelGrant
	kept     []byte // its record, when it still had material
}

type modelDisk struct {
	id, name string
	key      *modelKey // nil where it is plain
	version  int       // of the key, that its DEK is wrapped under
	attached bool
	readOnly bool
	data     []byte
	dek      string // what escrow handed out first
}

// against is what speaks against a verb, by exit code. Where several things do, any may be what is said.
type against []int

func refuses(codes ...int) against { return codes }

// when adds a code if it applies.
func (a against) when(applies bool, code int) against {
	if applies {
		return append(slices.Clip(a), code)
	}
	return a
}

func (a against) allows(code int) bool {
	if len(a) == 0 {
		return code == 0
	}
	return slices.Contains(a, code)
}

// usable is whether something can be wrapped or unwrapped under a key (rules A15, A16, A18).
func (k *modelKey) usable() bool { return !k.gone && k.state == enabled }

// userVerb is what speaks against a verb of a key for its state: it does not work there at all.
func (k *modelKey) against(fits bool) against {
	if k == nil || k.gone {
		return refuses(3)
	}
	return refuses().when(!fits, 4)
}

// in tells whether a key is in one of these states.
func (k *modelKey) in(states ...string) bool {
	return k != nil && !k.gone && slices.Contains(states, k.state)
}

// needs is what speaks against using a key's material: the project's rights, the root key, the state of the key (rules A38, A4, A16).
func (m *rulebook) needs(k *modelKey) against {
	a := refuses().when(!m.granted, 5).when(m.locked, 10)
	if k == nil {
		return a
	}
	return a.when(!k.usable(), 4)
}

func (m *rulebook) defaultKey() *modelKey {
	for _, k := range m.keys {
		if k.isDefault {
			return k
		}
	}
	return nil
}

func (m *rulebook) live() (list []*modelKey) {
	for _, k := range m.keys {
		if !k.gone {
			list = append(list, k)
		}
	}
	return list
}

func (m *rulebook) byAlias(alias string) *modelKey {
	for _, k := range m.live() {
		if k.alias == alias {
			return k
		}
	}
	return nil
}

func (m *rulebook) disk(name string) *modelDisk {
	for _, d := range m.disks {
		if d.name == name {
			return d
		}
	}
	return nil
}

// detachedAll is what an end of the daemon does to disks, however it ends (rule A22).
func (m *rulebook) detachedAll() {
	for _, d := range m.disks {
		d.attached = false
	}
}

func (m *rulebook) goneKeys() (list []*modelKey) {
	for _, k := range m.keys {
		if k.gone {
			list = append(list, k)
		}
	}
	return list
}

// without is the list without one of it.
func without(list []*modelDisk, d *modelDisk) []*modelDisk {
	return slices.DeleteFunc(list, func(o *modelDisk) bool { return o == d })
}

// shownKey tells how a disk is shown with its key.
func (d *modelDisk) shownKey() *control.DiskKey {
	switch {
	case d.key == nil:
		return nil
	case d.key.gone:
		return &control.DiskKey{ID: d.key.id, State: "Deleted"}
	}
	return &control.DiskKey{ID: d.key.id, Alias: d.key.alias, State: d.key.state}
}
