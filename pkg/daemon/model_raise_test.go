package daemon

import (
	"encoding/json"
	"errors"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
)

func recordOfKey(k *modelKey) string { return "key/" + control.DefaultProject + "/" + k.id }

// keepRecord keeps a key's record, as somebody might who has an older copy of the catalog.
func (g *game) keepRecord(k *modelKey) {
	if record := g.record(k); k.versions > 0 && record != nil {
		k.kept = record
	}
}

// record is what the catalog has of a key, nil for nothing.
func (g *game) record(k *modelKey) (record []byte) {
	err := g.d.catalog.View(background, func(r catalog.Reader) (err error) {
		record, err = r.Get(recordOfKey(k))
		return err
	})
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		g.failf("%v", err)
	}
	return record
}

// raise puts the record of a key that was destroyed, or whose material was, back into the catalog, as an enabled one: what is under
// it stays lost, since the erase key is (rule A21). Then all is as it was before.
func (g *game) raise() {
	var lost []*modelDisk
	for _, d := range g.disks {
		if k := d.key; k != nil && (k.gone || k.versions == 0) && k.kept != nil && !d.attached {
			lost = append(lost, d)
		}
	}
	if len(lost) == 0 || g.locked || !g.granted {
		g.rt.Skip()
	}
	d := among(g, "disk", lost...)
	var old map[string]any
	if err := json.Unmarshal(d.key.kept, &old); err != nil {
		g.failf("%v", err)
	}
	old["state"] = enabled
	delete(old, "deletion")
	now := g.record(d.key)
	g.putRecord(d.key, mustJSON(old))
	code, answer := g.send(ask{route: control.RouteAttach, name: d.name, body: control.Attach{}}, newRequest())
	g.played["raised"]++
	g.rt.Logf("disk %s is attached with a record from before: %d", d.name, code)
	if code != 8 {
		g.failf("exit code %d, want 8: %s", code, answer)
	}
	g.recorded(1)
	g.putRecord(d.key, now)
}

func (g *game) putRecord(k *modelKey, record []byte) {
	err := catalog.Commit(background, g.d.catalog, newRequest(), func(t catalog.Txn) error {
		if record == nil {
			return t.Delete(recordOfKey(k))
		}
		return t.Put(recordOfKey(k), record)
	})
	if err != nil {
		g.failf("%v", err)
	}
}
