package volume

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
)

// FuzzRecords: of whatever bytes a point, layer, merge or attachment is read, nothing panics, what is read is written as the same again, and what
// is refused is called damaged.
func FuzzRecords(f *testing.F) {
	now, id := time.Unix(1e9, 5).UTC(), uuid.New()
	for kind, v := range []any{
		pointRecord{Version: 1, Kind: BackupKind, ID: id, Name: "monday", Project: "default", Disk: uuid.New(), DiskName: "vault", Layer: uuid.New(), Size: 4096, SectorSize: 512,
			Encrypted: true, Key: uuid.NewString(), Status: Available, Created: now, Backup: &backupInfo{Store: uuid.New(), Public: make([]byte, 32), Depth: 1}, Request: "r"},
		layerRecord{Version: 1, ID: id, Parent: uuid.New(), Size: 4096, SectorSize: 512, Created: now, Frozen: true, Sealed: true, Merged: uuid.New()},
		mergeRecord{Version: 1, ID: id, Upper: uuid.New(), Lower: []uuid.UUID{uuid.New()}, Made: true},
		attachRecord{Version: 1, Disk: id, Host: "here", By: "root", Since: now, Shares: []Share{{ID: id, By: "root", Since: now}, {ID: uuid.New(), By: "root", Since: now, Device: "/dev/nbd0", Mount: "/mnt"}}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		if err := reread(kind, id, b); err != nil {
			f.Errorf("%s: %v", b, err)
		}
		for _, add := range [][]byte{b, b[:len(b)-1], append(b[:len(b)-1:len(b)-1], `,"later":1}`...), []byte(`{"v":2}`), nil} {
			f.Add(kind, id[:], add)
			if len(add) != len(b) && reread(kind, id, add) == nil {
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
		return twice(pointKey(BackupKind, id), b, parsePoint)
	case 1:
		return twice(layerKey(id), b, parseLayer)
	case 2:
		return twice(mergeKey(id), b, parseMerge)
	}
	return twice(attachmentKey(id), b, parseAttachment)
}

func twice[T any](key string, b []byte, parse func(string, []byte) (T, error)) error {
	v, err := parse(key, b)
	if err != nil {
		return err
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	same, err := parse(key, again)
	if err == nil {
		b, err = json.Marshal(same)
	}
	if err != nil || !bytes.Equal(b, again) {
		return fmt.Errorf("%s is written, and read as %s: %v", again, b, err) // no damage: what was read can't be kept
	}
	return nil
}
