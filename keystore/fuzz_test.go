package keystore

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
)

func FuzzBlob(f *testing.F) {
	key, err := secret.RandomWork(keySize, secret.Purpose{Kind: "test"})
	if err != nil {
		f.Fatal(err)
	}
	defer key.Destroy()
	id, plain := newIdentity("fuzz", uuid.Nil).number(7), []byte("plain text")
	seed, err := sealBlob(material{key: key.Bytes()}, id, plain)
	if err != nil || len(seed) != len(plain)+blobOverhead {
		f.Fatal("no seed", err)
	}
	f.Add(seed)
	f.Add(seed[:blobOverhead])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, blob []byte) {
		out := make([]byte, max(0, len(blob)-blobOverhead))
		err := openBlob(out, material{key: key.Bytes()}, id, blob)
		if (err == nil) != bytes.Equal(blob, seed) {
			t.Errorf("%x opens: %v", blob, err)
		}
	})
}

func FuzzDEKRecord(f *testing.F) {
	rec := Record{recordVersion, "default", Holder{"disk", "d1"}, "l1", uuid.New(), 1, Cipher, 512, make([]byte, DEKSize+blobOverhead)}
	seed, err := json.Marshal(rec)
	if err != nil || len(seed) == 0 {
		f.Fatal("no seed", err)
	}
	const name = "dek/disk/d1/l1"
	if _, err := parseDEK(name, seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if rec, err := parseDEK(name, b); err == nil && (dekKey(rec.Holder, rec.Layer) != name || rec.Cipher != Cipher) {
			t.Errorf("%q is taken", b)
		}
	})
}

func FuzzCMKRecord(f *testing.F) {
	now := time.Unix(1e9, 0).UTC()
	rec := cmkRecord{Version: recordVersion, ID: uuid.New(), Alias: "a", Project: "default", Region: "here", State: Enabled, Origin: OriginGenerated, Created: now,
		Slot: 1, Versions: []cmkVersion{{1, now, []byte{1}}}}
	seed, err := json.Marshal(rec)
	if err != nil || len(seed) == 0 {
		f.Fatal("no seed", err)
	}
	if _, err := parseCMK(rec.key(), seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"v":1,"state":"Enabled","versions":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := parseCMK("key/default/x", b)
		if err == nil && (stateWords[rec.State] == "" || rec.State == Enabled && rec.newest().Number == 0 && rec.Slot == 0) {
			t.Errorf("%q is taken", b)
		}
	})
}

// Two identities never share their bytes, wherever the parts' borders lie.
func TestIdentitiesDiffer(t *testing.T) {
	id := newIdentity("x", uuid.Nil)
	seen := map[string]bool{}
	for _, i := range []identity{
		id.text("ab").text("c"), id.text("a").text("bc"), id.text("abc"), id.text("abc").text(""), id.text("").text("abc"),
		id.number(1), id.text("\x00\x00\x00\x01").text(""), newIdentity("x\x00", uuid.Nil).text("abc"),
	} {
		if seen[string(i)] {
			t.Errorf("%q is there twice", i)
		}
		seen[string(i)] = true
	}
}
