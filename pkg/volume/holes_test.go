package volume_test

import (
	"testing"

	"nbdcrypt/pkg/catalog"
)

// extent is what a client is told of the whole disk, as far as the first run of it goes.
func (r *rig) extent(name string) (length int64, hole, zero bool) {
	r.t.Helper()
	length, hole, zero, err := r.attach(name).Device.Extent(0, 4*mib)
	must(r.t, err)
	_, err = r.detach(name)
	must(r.t, err)
	return length, hole, zero
}

// A disk made with its holes hidden is data all over to clients, also after an extend and a restart; any other shows them.
func TestNBD27_HolesAreHidden(t *testing.T) {
	r := newRig(t)
	hidden := secretDisk
	hidden.Name, hidden.HideHoles = "hidden", true
	if d := r.create(hidden); !d.HideHoles {
		t.Error("the disk that was made does not say so")
	}
	if d := r.create(secretDisk); d.HideHoles {
		t.Error("nobody asked for that")
	}
	_, err := r.Extend(t.Context(), "e", "default", "hidden", 8*mib)
	must(t, err)
	r.restart()
	if d, err := r.Get(t.Context(), "default", "hidden"); err != nil || !d.HideHoles {
		t.Errorf("after an extend and a restart: %+v, %v", d, err)
	}
	if length, hole, zero := r.extent("hidden"); length != 4*mib || hole || zero {
		t.Errorf("hidden: %d bytes, hole %v, zero %v", length, hole, zero)
	}
	if length, hole, zero := r.extent("vault"); length != 4*mib || !hole || !zero {
		t.Errorf("vault: %d bytes, hole %v, zero %v", length, hole, zero)
	}
}

// A record from before there was a choice shows holes.
func TestRecordWithoutHideHoles(t *testing.T) {
	r := newRig(t)
	const id = "11111111-2222-4333-8444-555555555555"
	must(t, r.catalog.Update(t.Context(), "old", func(txn catalog.Txn) error {
		must(t, txn.Put("disk-name/default/old", []byte(id)))
		return txn.Put("disk/"+id, []byte(`{"v":1,"id":"`+id+`","name":"old","project":"default","size":4096,"sector_size":512,"encrypted":false,`+
			`"status":"available","top":"00000000-0000-0000-0000-000000000000","epoch":0,"created":"2026-01-02T03:04:05Z","request":"r"}`))
	}))
	if d, err := r.Get(t.Context(), "default", "old"); err != nil || d.HideHoles {
		t.Errorf("%+v, %v", d, err)
	}
}
