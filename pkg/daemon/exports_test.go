package daemon

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
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
	x.add(shared, 1000, []access.Guest{{UID: 2000}, {UID: access.NoUID, Name: "cert:backup"}, {UID: access.NoUID, Name: "vsock:3"}}, []string{"eve"})
	x.add(other, 3000, nil, nil)
	named := func(name string) nbd.Peer { return nbd.Peer{UID: nbd.NoUID, Name: name} }
	for peer, want := range map[nbd.Peer][]string{{UID: 0}: {"blue/other", "mine", "shared"}, {UID: 1000}: {"mine", "shared"}, {UID: 2000}: {"shared"},
		{UID: 3000}: {"blue/other"}, {UID: 4000}: nil, {UID: 7}: nil, named("cert:backup"): {"shared"}, named("vsock:3"): {"shared"},
		named("cert:root"): {"blue/other", "mine", "shared"}, named("cert:vsock:3"): nil, named("cert:0"): nil, named("vsock:4"): nil, named("backup"): nil,
		named("root"): nil, named(""): nil} {
		infos, err := x.List(t.Context(), peer)
		if err != nil || len(infos) != len(want) {
			t.Errorf("%+v sees %v (%v), want %v", peer, infos, err, want)
			continue
		}
		may := map[string]bool{}
		for i, name := range want {
			may[name] = true
			if infos[i].Name != name {
				t.Errorf("%+v sees %v, want %v", peer, infos, want)
			}
		}
		for _, name := range []string{"mine", "shared", "blue/other", "nothing", "blue/mine"} {
			_, err := x.Open(t.Context(), peer, name)
			if (err == nil) != may[name] {
				t.Errorf("%+v opens %s: %v", peer, name, err)
			}
		}
		_, err = x.Open(t.Context(), peer, "")
		if (err == nil) != (len(want) == 1) {
			t.Errorf("%+v opens the default export: %v", peer, err)
		}
	}
	x.remove(mine)
	if _, err := x.Open(t.Context(), nbd.Peer{}, "mine"); !errors.Is(err, nbd.ErrUnknownExport) {
		t.Errorf("a detached disk: %v", err)
	}
}
