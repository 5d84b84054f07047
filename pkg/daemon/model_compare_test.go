package daemon

import (
	"bytes"
	"reflect"

	"pgregory.net/rapid"

	"nbdcrypt/pkg/control"
)

// compare holds the daemon against the model, as `key list` and `disk list` show it to root, and reads every attached disk: I/O goes
// on whatever becomes of the keys (rules A14, A18, A20).
func (g *game) compare(rt *rapid.T) {
	g.rt = rt
	answer, _ := g.play(ask{route: control.RouteKeyList, quiet: true}, nil)
	keys := map[string]control.Key{}
	for _, k := range decode[[]control.Key](g, answer) {
		keys[k.ID] = k
	}
	for _, k := range g.live() {
		g.sameKey(keys[k.id], k)
	}
	if len(keys) != len(g.live()) {
		g.failf("there are %d keys, want %d: %s", len(keys), len(g.live()), answer)
	}
	for _, d := range g.disks {
		g.sameData(d)
	}
	if g.compared++; g.compared%4 != 0 {
		return // disks take longer to list
	}
	answer, _ = g.play(ask{route: control.RouteDiskList, quiet: true}, nil)
	disks := map[string]control.Disk{}
	for _, d := range decode[[]control.Disk](g, answer) {
		disks[d.ID] = d
	}
	for _, d := range g.disks {
		g.sameDisk(disks[d.id], d)
	}
	if len(disks) != len(g.disks) {
		g.failf("there are %d disks, want %d: %s", len(disks), len(g.disks), answer)
	}
}

// sameKey holds what `key show` says against the model.
func (g *game) sameKey(have control.Key, k *modelKey) {
	g.rt.Helper()
	want := control.Key{ID: k.id, Alias: k.alias, Project: control.DefaultProject, State: k.state, Default: k.isDefault,
		Origin: "generated", Version: k.versions, Created: k.created, DeletionDate: k.deletion, Description: k.text, Tags: k.tags, Expires: k.expires}
	if k.rotation.days > 0 {
		want.RotationDays = &k.rotation.days
	}
	if k.imported {
		want.Origin = "imported"
	}
	if want.Tags == nil {
		want.Tags = map[string]string{}
	}
	if !reflect.DeepEqual(have, want) {
		g.failf("the key is %s, want %s", mustJSON(have), mustJSON(want))
	}
}

// sameDisk holds what `disk show` says against the model.
func (g *game) sameDisk(have control.Disk, d *modelDisk) {
	g.rt.Helper()
	status := "available"
	if d.attached {
		status = "in-use"
	}
	same := have.ID == d.id && have.Name == d.name && have.Size == diskSize && have.Encrypted == (d.key != nil) && have.Status == status &&
		reflect.DeepEqual(have.Key, d.shownKey()) && len(have.Layers) == 1 && (len(have.Attachments) == 1) == d.attached
	if !same {
		g.failf("the disk is %s, want %+v", mustJSON(have), *d)
	}
}

// sameData reads a disk that is attached.
func (g *game) sameData(d *modelDisk) {
	if !d.attached {
		return
	}
	data := make([]byte, diskSize)
	if _, err := g.device(d).ReadAt(data, 0); err != nil {
		g.failf("reading disk %s: %v", d.name, err)
	}
	if !bytes.Equal(data, d.data) {
		g.failf("disk %s does not hold what was written", d.name)
	}
}
