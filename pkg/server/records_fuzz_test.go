package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/volume"
)

// FuzzRecords: of whatever bytes a server, configuration or group is read, nothing panics, what is read is written as the same again, and what is refused is called damaged.
func FuzzRecords(f *testing.F) {
	now, id := time.Unix(1e9, 5).UTC(), uuid.New()
	h := head{Version: 1, ID: id, Name: "web", Project: "default", Status: Creating, Created: now, Request: "r"}
	m := machine{CPUs: 2, Memory: 1 << 30, Network: NetworkUser}
	for kind, v := range []any{
		serverRecord{head: h, machine: m, Disks: []serverDisk{{Role: SystemRole, ID: uuid.New(), Name: "web-system"}, {Role: DataRole, ID: uuid.New(), Name: "web-data-1", Given: true}},
			Image: &volume.Source{Kind: volume.ImageKind, ID: uuid.New(), Name: "golden"}, Group: uuid.New(), Number: 3},
		configRecord{head: h, machine: m, Image: uuid.New(), ImageName: "golden", Owned: true, Source: &volume.Source{Kind: "server", ID: uuid.New(), Name: "web"}, SystemSize: 4096,
			Data: []configDisk{{Size: 4096, SectorSize: 512, Encrypted: true, Key: uuid.NewString()}, {Size: 4096, SectorSize: 4096}}},
		groupRecord{head: h, Config: uuid.New(), Min: 1, Max: 5, Next: 4, Scaling: &scaling{Request: "r", Grows: true, Members: []int{2, 3}}, Last: &scaling{Request: "q", Members: []int{1}}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		if err := reread(kind, id, b); err != nil {
			f.Errorf("%s: %v", b, err)
		}
		for _, add := range [][]byte{b, b[:len(b)-1], append(b[:len(b)-1:len(b)-1], `,"later":1}`...), bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1),
			bytes.Replace(b, []byte(`"creating"`), []byte(`"running"`), 1), append(b[:len(b):len(b)], '1'), nil} {
			f.Add(kind, id[:], add)
			if !bytes.Equal(add, b) && reread(kind, id, add) == nil {
				f.Errorf("%s is read", add)
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind int, id, b []byte) {
		if len(id) != 16 {
			return
		}
		if err := reread(kind, uuid.UUID(id), b); err != nil && !isDamage(err) {
			t.Errorf("%q: %v", b, err)
		}
	})
}

// reread reads a record of one of the kinds, and what is written of it.
func reread(kind int, id uuid.UUID, b []byte) error {
	switch kind {
	case 0:
		return twice(servers, id, b)
	case 1:
		return twice(configs, id, b)
	}
	return twice(groups, id, b)
}

func twice[T recorded](k kind[T], id uuid.UUID, b []byte) error {
	v, err := k.parse(k.key(id), b)
	if err != nil {
		return err
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	same, err := k.parse(k.key(id), again)
	if err == nil {
		b, err = json.Marshal(same)
	}
	if err != nil || !bytes.Equal(b, again) {
		return fmt.Errorf("%s is written, and read as %s: %v", again, b, err) // no damage: what was read can't be kept
	}
	return nil
}

func TestWhatNoRecordCanBe(t *testing.T) {
	h := head{Version: 1, ID: uuid.New(), Status: Stopped}
	m := machine{CPUs: 1, Memory: MinMemory, Network: NetworkNone}
	disk := serverDisk{Role: DataRole, ID: uuid.New()}
	system := serverDisk{Role: SystemRole, ID: uuid.New()}
	a := h
	a.Status = Available
	for name, wrong := range map[string]string{
		"two system disks":     serverRecord{head: h, machine: m, Disks: []serverDisk{system, {Role: SystemRole, ID: uuid.New()}}}.wrong(),
		"a system disk behind": serverRecord{head: h, machine: m, Disks: []serverDisk{disk, system}}.wrong(),
		"no role":              serverRecord{head: h, machine: m, Disks: []serverDisk{{ID: uuid.New()}}}.wrong(),
		"a disk twice":         serverRecord{head: h, machine: m, Disks: []serverDisk{disk, disk}}.wrong(),
		"no number":            serverRecord{head: h, machine: m, Group: uuid.New()}.wrong(),
		"no group":             serverRecord{head: h, machine: m, Number: 1}.wrong(),
		"no CPUs":              serverRecord{head: h}.wrong(),
		"its status":           serverRecord{head: a, machine: m}.wrong(),
		"no size":              configRecord{head: a, machine: m}.wrong(),
		"no key":               configRecord{head: a, machine: m, SystemSize: 1, Data: []configDisk{{Encrypted: true}}}.wrong(),
		"the status":           configRecord{head: h, machine: m, SystemSize: 1}.wrong(),
		"no maximum":           groupRecord{head: a, Next: 1}.wrong(),
		"a minimum above it":   groupRecord{head: a, Next: 1, Min: 2, Max: 1}.wrong(),
		"no next":              groupRecord{head: a, Max: 1}.wrong(),
		"members of nobody":    groupRecord{head: a, Max: 1, Next: 2, Last: &scaling{Members: []int{2}}}.wrong(),
	} {
		if wrong == "" {
			t.Errorf("%s is read", name)
		}
	}
	for _, wrong := range []string{serverRecord{head: h, machine: m, Disks: []serverDisk{system, disk}}.wrong(), serverRecord{head: h, machine: m}.wrong(),
		configRecord{head: a, machine: m, SystemSize: 1}.wrong(), groupRecord{head: a, Max: 1, Next: 1}.wrong()} {
		if wrong != "" {
			t.Error(wrong)
		}
	}
}
