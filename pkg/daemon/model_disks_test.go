package daemon

import (
	"bytes"
	"encoding/hex"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/volume/cryptdev"
)

const (
	diskSize = 64 << 10
	sector   = 512
)

// aDisk draws what a call names a disk by, and the disk, nil where there is none.
func (g *game) aDisk(fits func(*modelDisk) bool) (ref string, d *modelDisk) {
	if list := fitting(g, g.disks, fits); len(list) > 0 && !g.oneIn(20, "a disk that is not there") {
		d = among(g, "disk", list...)
		return among(g, "by", d.name, d.id), d
	}
	return "nothing", nil
}

func anyDisk(*modelDisk) bool       { return true }
func isAttached(d *modelDisk) bool  { return d.attached }
func isStranded(d *modelDisk) bool  { return d.attached && d.key != nil && !d.key.usable() }
func isDetached(d *modelDisk) bool  { return !d.attached }
func isEncrypted(d *modelDisk) bool { return d.key != nil }
func isUsable(d *modelDisk) bool    { return d.key != nil && d.key.usable() }

func (d *modelDisk) there() against { return refuses().when(d == nil, 3) }

// under is the key of a disk, where there is one.
func (d *modelDisk) under() *modelKey {
	if d == nil {
		return nil
	}
	return d.key
}

func (g *game) diskCreate() {
	in := control.DiskCreate{Name: among(g, "name", "p", "q", "r", "s", "t"), Size: diskSize}
	k, what := g.keyOfNew(&in)
	what = what.when(g.disk(in.Name) != nil, 6)
	answer, done := g.play(ask{who: g.somebody(), route: control.RouteDiskCreate, body: in}.about(k), what)
	if !done {
		return
	}
	d := &modelDisk{name: in.Name, key: k, data: make([]byte, diskSize)}
	if k != nil {
		d.version = k.versions
	}
	d.id = decode[control.Disk](g, answer).ID
	g.disks = append(g.disks, d)
	g.sameDisk(decode[control.Disk](g, answer), d)
}

// keyOfNew draws how a disk is asked for, and tells which key it is under then, nil for a plain one, and what speaks against it.
func (g *game) keyOfNew(in *control.DiskCreate) (k *modelKey, what against) {
	switch among(g, "asked for", "a key", "a key", "a key", "encrypted", "encrypted", "nothing", "plain") {
	case "a key":
		in.Key, k = g.aKey((*modelKey).usable)
		what = refuses().when(k == nil, 3)
		return k, append(what, g.needs(k)...)
	case "encrypted":
		in.Encrypted = new(true)
	case "plain":
		in.Encrypted = new(false)
		return nil, nil
	case "nothing":
		if !g.byDefault.encrypted {
			return nil, nil
		}
	}
	if k = g.byDefault.key; k == nil {
		k = g.defaultKey()
	}
	return k, append(refuses().when(k == nil, 3), g.needs(k)...)
}

func (g *game) attach() {
	ref, d := g.aDisk(isDetached)
	in := control.Attach{ReadOnly: g.oneIn(6, "read only")}
	what := d.there()
	if d != nil {
		what = what.when(d.attached, 6)
		if d.key != nil {
			what = append(what, g.needs(d.key)...)
		}
	}
	a := ask{who: g.somebody(), route: control.RouteAttach, name: ref, body: in}.about(d.under())
	answer, done := g.play(a, what)
	if !done {
		return
	}
	if out := decode[control.Attached](g, answer); out.Disk != d.name || out.ReadOnly != in.ReadOnly {
		g.failf("attached: %s", answer)
	}
	after := toldUnclean(a, 0, answer)
	d.attached, d.readOnly = true, in.ReadOnly
	if released := g.lastRecord(after).Key; d.key != nil && released != (keystore.KeyVersionRef{ID: d.key.id, Version: d.version}).String() {
		g.failf("the audit log says that %q was released", released)
	}
}

func (g *game) detach() {
	fits := isAttached
	if g.oneIn(2, "a stranded one") {
		fits = isStranded
	}
	ref, d := g.aDisk(fits)
	a, sure := g.perhapsSure(ask{who: g.somebody(), route: control.RouteDetach, name: ref}.about(d.under()))
	what := d.there()
	if d != nil {
		what = what.when(!d.attached, 6).when(isStranded(d) && !sure, 9) // rule A23
	}
	if _, done := g.play(a, what); done {
		d.attached = false
	}
}

func (g *game) diskShow() {
	ref, d := g.aDisk(anyDisk)
	if answer, done := g.play(ask{who: g.somebody(), route: control.RouteDiskShow, name: ref}.about(d.under()), d.there()); done {
		g.sameDisk(decode[control.Disk](g, answer), d)
	}
}

func (g *game) diskDelete() {
	ref, d := g.aDisk(isDetached)
	a, sure := g.perhapsSure(ask{who: g.somebody(), route: control.RouteDiskDelete, name: ref}.about(d.under()))
	what := d.there().when(!sure, 9)
	if d != nil {
		what = what.when(d.attached, 6) // and no key is needed for it (rule C12)
	}
	if _, done := g.play(a, what); done {
		g.disks = without(g.disks, d)
	}
}

// diskEscrow also holds the DEK against the one of last time: nothing changes it.
func (g *game) diskEscrow() {
	ref, d := g.aDisk(isEncrypted)
	a, sure := g.perhapsSure(ask{who: g.somebody(), route: control.RouteDiskEscrow, name: ref}.about(d.under()))
	what := d.there().when(!sure, 9)
	if d != nil {
		what = what.when(d.key == nil, 1)
		if d.key != nil {
			what = append(what, g.needs(d.key)...)
		}
	}
	answer, done := g.play(a, what)
	if !done {
		return
	}
	keys := decode[control.Escrow](g, answer)
	if len(keys.Layers) != 1 || len(keys.Layers[0].Key) != hex.EncodedLen(keystore.DEKSize) || d.dek != "" && d.dek != keys.Layers[0].Key {
		g.failf("disk %s had the key %s, and now: %s", d.name, d.dek, answer)
	}
	d.dek = keys.Layers[0].Key
}

// write writes a run of sectors of a disk that is attached, and syncs them.
func (g *game) write() {
	var open []*modelDisk
	for _, d := range g.disks {
		if d.attached && !d.readOnly {
			open = append(open, d)
		}
	}
	if len(open) == 0 {
		g.rt.Skip()
	}
	d := among(g, "disk", open...)
	at := among(g, "sector", 0, 1, 7, 8, 64, diskSize/sector-4) * sector
	piece := bytes.Repeat([]byte{byte(among(g, "byte", 'a', 'b', 'c', 0))}, among(g, "sectors", 1, 2, 4)*sector)
	device := g.device(d)
	if _, err := device.WriteAt(piece, int64(at)); err != nil {
		g.failf("writing to disk %s: %v", d.name, err)
	}
	if err := device.Sync(); err != nil {
		g.failf("%v", err)
	}
	copy(d.data[at:], piece)
	g.rt.Logf("wrote %d bytes at %d of disk %s", len(piece), at, d.name)
}

func (g *game) device(d *modelDisk) *cryptdev.Device {
	for _, a := range g.d.attachments() {
		if a.Disk.String() == d.id {
			return a.Device
		}
	}
	g.failf("disk %s is not attached", d.name)
	return nil
}
