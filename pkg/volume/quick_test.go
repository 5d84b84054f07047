package volume

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
)

// FuzzQuickDisk: what is read the quick way is what encoding/json reads strictly, and what put writes is read the quick way.
func FuzzQuickDisk(f *testing.F) {
	records := []diskRecord{
		{Version: 1, ID: uuid.New(), Name: "vault", Project: "default", Size: 1 << 40, SectorSize: 512, Encrypted: true, Key: uuid.NewString(), Status: Available,
			Top: uuid.New(), Epoch: 7, Created: time.Unix(1e9, 5).UTC(), HideHoles: true, Bootable: true, Request: "r"},
		{Version: 1, ID: uuid.New(), Name: "plain", Project: "p", Size: 4096, SectorSize: 4096, Status: Deleting, Created: time.Unix(1e9, 0).UTC(), Request: uuid.NewString()},
	}
	// A record with what only some disks have is read by encoding/json.
	more := records[0]
	more.Shared, more.Source, more.Fill = true, &Source{SnapshotKind, uuid.New(), "before"}, &fill{Why: fillFull}
	b, err := json.Marshal(more)
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := quickDisk(b); ok {
		f.Errorf("%s is read the quick way", b)
	}
	if got, err := parseDisk(diskKey(more.ID), b); err != nil || !reflect.DeepEqual(got, more) {
		f.Errorf("%s is read as %+v, %v", b, got, err)
	}
	for _, d := range records {
		b, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		if got, ok := quickDisk(b); !ok || !reflect.DeepEqual(got, d) {
			f.Fatalf("%s is read as %+v, %v", b, got, ok)
		}
		f.Add(b)
		f.Add(append(b, ' '))
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := quickDisk(b)
		if !ok {
			return
		}
		var want diskRecord
		if err := parse("x", b, &want, &want.Version); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as %+v, strictly as %+v, %v", b, got, want, err)
		}
	})
}
