package daemon

import (
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// A deletion that could not give back the space for want of a key does so by itself once the key can be used again, and the status warns no longer.
func TestSpaceComesBackWithTheKey(t *testing.T) {
	for name, way := range map[string]struct{ away, back string }{
		"disabled": {"POST /v1/keys/mine/disable", "POST /v1/keys/mine/enable"},
		"locked":   {"POST /v1/root/lock", "POST /v1/root/unlock"},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t)
			d.watching.Go(d.doChores)
			must(t, d, control.RouteKeyCreate, `{"alias":"mine"}`)
			must(t, d, control.RouteDiskCreate, `{"name":"vault","size":1048576,"key":"mine"}`)
			must(t, d, "POST /v1/disks/vault/attach", "{}")
			if _, err := d.volumes.Attachments()[0].Device.WriteAt(make([]byte, 8192), 0); err != nil {
				t.Fatal(err)
			}
			must(t, d, control.RouteSnapshotCreate, `{"name":"before","disk":"vault"}`)
			mustAsk[control.Detached](t, d, control.RouteDetach, "vault", "")
			must(t, d, way.away, "")
			gone, _ := jobOf[control.SnapshotDeleted](t, d, "DELETE /v1/snapshots/before?yes=true", "")
			if len(gone.Warnings) != 1 || !strings.Contains(gone.Warnings[0], "not given back yet") {
				t.Errorf("%+v", gone)
			}
			d.tidySoon() // as other deletions do
			eventually(t, "the status says that a key is missing", func() bool { return len(d.chores.warnings()) == 1 })
			must(t, d, way.back, "")
			eventually(t, "the space is given back", func() bool { return len(showDisk(t, d, "vault").Layers) == 1 })
			eventually(t, "the status says nothing of it", func() bool { return len(d.chores.warnings()) == 0 })
		})
	}
}
