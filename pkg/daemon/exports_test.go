package daemon

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/volume"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

func attachment(project, name string) *volume.Attachment {
	stack := []cryptdev.Layer{{Layer: &layer.Layer{Header: layer.Header{SectorSize: 512}}}}
	return &volume.Attachment{Disk: uuid.New(), Project: project, Name: name, Device: cryptdev.New(stack, 4096, false)}
}

// An export opens for who attached it, for whom it was opened to, and for root; others are not even told of it.
func TestExportsAreForWhomTheyAreMeant(t *testing.T) {
	x := newExports()
	mine, shared, other := attachment("default", "mine"), attachment("default", "shared"), attachment("blue", "other")
	x.add(mine, 1000, nil, nil)
	x.add(shared, 1000, []uint32{2000}, []string{"eve"})
	x.add(other, 3000, nil, nil)
	for uid, want := range map[uint32][]string{0: {"blue/other", "mine", "shared"}, 1000: {"mine", "shared"}, 2000: {"shared"},
		3000: {"blue/other"}, 4000: nil, 7: nil} {
		infos, err := x.List(t.Context(), nbd.Peer{UID: uid})
		if err != nil || len(infos) != len(want) {
			t.Errorf("%d sees %v (%v), want %v", uid, infos, err, want)
			continue
		}
		may := map[string]bool{}
		for i, name := range want {
			may[name] = true
			if infos[i].Name != name {
				t.Errorf("%d sees %v, want %v", uid, infos, want)
			}
		}
		for _, name := range []string{"mine", "shared", "blue/other", "nothing", "blue/mine"} {
			_, err := x.Open(t.Context(), nbd.Peer{UID: uid}, name)
			if (err == nil) != may[name] {
				t.Errorf("%d opens %s: %v", uid, name, err)
			}
		}
		_, err = x.Open(t.Context(), nbd.Peer{UID: uid}, "")
		if (err == nil) != (len(want) == 1) {
			t.Errorf("%d opens the default export: %v", uid, err)
		}
	}
	x.remove(mine)
	if _, err := x.Open(t.Context(), nbd.Peer{}, "mine"); !errors.Is(err, nbd.ErrUnknownExport) {
		t.Errorf("a detached disk: %v", err)
	}
}
