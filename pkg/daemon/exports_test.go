package daemon

import (
	"errors"
	"slices"
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
	return &volume.Attachment{Disk: uuid.New(), Project: project, Name: name, Stack: &volume.Stack{Device: cryptdev.New(stack, 4096, false)}}
}

// An export opens for who attached it, for whom it was opened to, and for root; others are not even told of it.
func TestExportsAreForWhomTheyAreMeant(t *testing.T) {
	x := newExports()
	mine, shared, other := attachment("default", "mine"), attachment("default", "shared"), attachment("blue", "other")
	x.add(mine, opening{attacher: 1000})
	x.add(shared, opening{attacher: 1000, allow: []access.Guest{{UID: 2000}, {UID: access.NoUID, Name: "cert:backup"}, {UID: access.NoUID, Name: "vsock:3"}}, allowNames: []string{"eve"}})
	x.add(other, opening{attacher: 3000})
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

// TestRuleB14_WhoMayOpenASharedDisk: an export is open to whom any attachment opens it, and shut for whom only one did that ended.
func TestRuleB14_WhoMayOpenASharedDisk(t *testing.T) {
	x := newExports()
	a := attachment("default", "quorum")
	first, second := opening{share: uuid.New(), attacher: 1000, allow: []access.Guest{{UID: 2000}}}, opening{share: uuid.New(), attacher: 3000, allow: []access.Guest{{UID: 1000}}, allowNames: []string{"ann"}}
	x.add(a, first)
	x.add(a, second)
	may := func(want ...uint32) {
		t.Helper()
		for _, uid := range []uint32{1000, 2000, 3000, 4000} {
			if _, err := x.Open(t.Context(), nbd.Peer{UID: uid}, "quorum"); (err == nil) != slices.Contains(want, uid) {
				t.Errorf("%d opens it: %v", uid, err)
			}
		}
	}
	may(1000, 2000, 3000)
	if got := x.allowed(x.get(a), second.share); len(got) != 1 || got[0] != "ann" || len(x.allowed(x.get(a), first.share)) != 0 {
		t.Errorf("the second opens it to %v", got)
	}
	x.leave(a, first.share)
	may(1000, 3000)
	x.leave(a, second.share)
	may()
}
