package keystore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

// update writes the artefacts that are missing. What a release has written is never written again.
var update = flag.Bool("update", false, "write the artefacts of the on-disk formats that are missing")

const (
	artefacts = "../testdata/keystore/v1"
	stream    = "catalog.stream"
	slotFile  = "slot"
	slotPass  = "the passphrase of the artefacts"
)

// expected is what the artefacts hold.
type expected struct {
	Store string            `json:"store"`
	Keys  []keystore.Info   `json:"keys"`
	DEKs  map[string]string `json:"deks"`
	Audit audit.Head        `json:"audit"`
}

// state is a state directory made of artefacts; broken, by name, take the place of good ones.
func state(t *testing.T, broken ...string) (dir, keyFile string) {
	t.Helper()
	base := t.TempDir()
	dir, keyFile = filepath.Join(base, "state"), filepath.Join(base, "root.key")
	mkdir(t, dir)
	writeFile(t, keyFile, artefact(t, "root.key", broken))
	for _, name := range []string{"store", keystore.EraseFile, keystore.AuditFile, stream} {
		writeFile(t, filepath.Join(dir, name), artefact(t, name, broken))
	}
	mkdir(t, filepath.Join(dir, keystore.SlotsDir))
	_, id, _ := strings.Cut(string(artefact(t, slotFile, nil)), "\nslot ")
	writeFile(t, filepath.Join(dir, keystore.SlotsDir, id[:36]), artefact(t, slotFile, broken))
	return dir, keyFile
}

func artefact(t *testing.T, name string, broken []string) []byte {
	t.Helper()
	for _, b := range broken {
		if len(b) > len(name) && b[:len(name)] == name {
			return readFile(t, filepath.Join(artefacts, "broken", b))
		}
	}
	return readFile(t, filepath.Join(artefacts, name))
}

// openState opens such a directory and compares all of it with what is expected.
func openState(t *testing.T, dir, keyFile string, want expected) error {
	t.Helper()
	root, err := keystore.OpenRoot(keyFile, dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if root.Locked() {
		if _, err := root.UnlockPassphrase(t.Context(), passphrase(t, slotPass)); err != nil {
			return err
		}
	}
	raw := catalog.Memory()
	if err := raw.Import(t.Context(), bytes.NewReader(readFile(t, filepath.Join(dir, stream)))); err != nil {
		return refusal.New(refusal.Damaged, "-", "%w", err)
	}
	ks, err := keystore.Open(t.Context(), keystore.Config{
		Catalog: keystore.Seal(raw, root), Root: root, Region: "here", Clock: clock.System{},
	})
	if err != nil {
		return err
	}
	defer ks.Close()
	have, err := contents(t, ks, root, dir)
	if err != nil {
		return err
	}
	a, _ := json.Marshal(have)
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) {
		t.Errorf("the artefacts hold %s, want %s", a, b)
	}
	return nil
}

func contents(t *testing.T, ks *keystore.Store, root *keystore.Root, dir string) (e expected, err error) {
	e.Store, e.DEKs = root.Store.String(), make(map[string]string)
	if e.Keys, err = ks.Keys(t.Context(), "default"); err != nil {
		return e, err
	}
	for id, size := range map[string]int{"d1": 512, "d2": 4096} {
		dek, _, err := ks.UnwrapDEK(t.Context(), "default", keystore.Holder{Kind: "disk", ID: id}, "layer", size)
		if err != nil {
			return e, err
		}
		e.DEKs[id] = hex.EncodeToString(dek.Bytes())
		dek.Destroy()
	}
	log, err := audit.Open(t.Context(), audit.Config{Path: filepath.Join(dir, keystore.AuditFile), Store: root.Store, MAC: root.AuditMAC})
	if err != nil {
		return e, err
	}
	e.Audit = log.Head()
	return e, log.Close()
}

func TestArtefactsOfVersion1Open(t *testing.T) {
	defer keystore.Product()()
	if *update {
		writeMissing(t)
	}
	var want expected
	must(t, json.Unmarshal(readFile(t, filepath.Join(artefacts, "expected.json")), &want))
	if len(want.Keys) != 2 || len(want.DEKs) != 2 || want.Audit.Seq != 2 {
		t.Fatalf("the expectation is empty: %+v", want)
	}
	dir, keyFile := state(t)
	must(t, openState(t, dir, keyFile, want))
	must(t, os.Remove(keyFile))
	must(t, openState(t, dir, keyFile, want))
}

// broken are the broken artefacts with what opening them gives, and how they are made of the good ones.
var broken = map[string]struct {
	code  refusal.Code
	spoil func([]byte) []byte
}{
	"root.key--flipped":    {refusal.Damaged, spoilAt(80)},
	"root.key--version2":   {refusal.Damaged, func(b []byte) []byte { return bytes.Replace(b, []byte("key 1\n"), []byte("key 2\n"), 1) }},
	"store--cut":           {refusal.Damaged, func(b []byte) []byte { return b[:70] }},
	"store--version2":      {refusal.Damaged, func(b []byte) []byte { return bytes.Replace(b, []byte("store 1\n"), []byte("store 2\n"), 1) }},
	"erase--header":        {refusal.Damaged, spoilAt(13, 4096+13)},
	"erase--slot1":         {refusal.Damaged, spoilAt(8192+30, 8192+4096+30)},
	"erase--cut":           {refusal.Damaged, func(b []byte) []byte { return b[:8192+30] }},
	"catalog.stream--cut":  {refusal.Damaged, func(b []byte) []byte { return b[:len(b)/2] }},
	"catalog.stream--flip": {refusal.Damaged, spoilAt(200)},
	"slot--flipped":        {refusal.Locked, spoilAt(300)},
	"slot--cut":            {refusal.Locked, func(b []byte) []byte { return b[:250] }},
	"slot--version2":       {refusal.Locked, edit("slot 1\n", "slot 2\n")},
	"slot--kind":           {refusal.Locked, edit("kind passphrase\n", "kind magic\n")},
	"slot--name":           {refusal.Locked, edit("name laptop\n", "name desktop\n")},
	"slot--weak":           {refusal.Locked, edit("argon2id 3 262144 4\n", "argon2id 1 262144 4\n")},
	"slot--greedy":         {refusal.Locked, edit("argon2id 3 262144 4\n", "argon2id 3 262144000 4\n")},
	"audit.log--edited":    {refusal.Damaged, func(b []byte) []byte { return bytes.Replace(b, []byte("alice"), []byte("mallo"), 1) }},
}

// edit changes a text and makes its sum fit again.
func edit(old, new string) func([]byte) []byte {
	return func(b []byte) []byte {
		text, _, _ := bytes.Cut(bytes.Replace(b, []byte(old), []byte(new), 1), []byte("sum "))
		sum := sha256.Sum256(text)
		return fmt.Appendf(text, "sum %x\n", sum[:8])
	}
}

func spoilAt(at ...int) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, i := range at {
			b[i] ^= 1
		}
		return b
	}
}

func TestBrokenArtefactsOfVersion1AreRefused(t *testing.T) {
	defer keystore.Product()()
	for name, b := range broken {
		dir, keyFile := state(t, name)
		// One way in is enough to open the store.
		if strings.HasPrefix(name, slotFile+"--") {
			must(t, os.Remove(keyFile))
		} else {
			must(t, os.RemoveAll(filepath.Join(dir, keystore.SlotsDir)))
		}
		if err := openState(t, dir, keyFile, expected{}); refusal.CodeOf(err) != b.code {
			t.Errorf("%s: %v, want code %d", name, err, b.code)
		}
	}
}

func writeMissing(t *testing.T) {
	if _, err := os.Stat(filepath.Join(artefacts, "store")); err != nil {
		writeArtefacts(t)
	}
	if _, err := os.Stat(filepath.Join(artefacts, slotFile)); err != nil {
		writeSlotArtefact(t)
	}
}

// writeSlotArtefact adds a slot to the store of the artefacts.
func writeSlotArtefact(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"root.key", "store"} {
		mkdir(t, filepath.Join(base, name+".d"))
		writeFile(t, filepath.Join(base, name+".d", name), artefact(t, name, nil))
	}
	dir := filepath.Join(base, "store.d")
	root, err := keystore.OpenRoot(filepath.Join(base, "root.key.d", "root.key"), dir)
	must(t, err)
	defer root.Close()
	info, err := root.AddPassphrase(t.Context(), "laptop", passphrase(t, slotPass))
	must(t, err)
	keep(t, map[string][]byte{slotFile: readFile(t, filepath.Join(dir, keystore.SlotsDir, info.ID))})
}

// writeArtefacts makes a store and keeps its files.
func writeArtefacts(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "mine")
	l.dek("default", "", keystore.Holder{Kind: "disk", ID: "d1"}, "layer")
	rec, err := l.GenerateDEK(l.ctx(), "default", "mine", keystore.Holder{Kind: "disk", ID: "d2"}, "layer", 4096)
	must(t, err)
	l.put(rec)
	_, err = l.Disable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	_, err = l.Enable(l.ctx(), l.request(), "default", "mine")
	must(t, err)
	log, err := audit.Open(l.ctx(), audit.Config{
		Path: filepath.Join(l.dir, keystore.AuditFile), Store: l.root.Store, Clock: clock.NewFake(time.Unix(1e9, 0)), Create: true, MAC: l.root.AuditMAC,
	})
	must(t, err)
	for i, verb := range []string{"grant.create", "disk.attach"} {
		_, err := log.Append(l.ctx(), audit.Record{Request: verb, User: "alice", Verb: verb, Project: "default", Outcome: audit.OK, Catalog: uint64(i)})
		must(t, err)
	}
	must(t, log.Close())
	var export bytes.Buffer
	must(t, l.raw.Export(l.ctx(), &export))
	want, err := contents(t, l.Store, l.root, l.dir)
	must(t, err)
	text, err := json.MarshalIndent(want, "", "  ")
	must(t, err)
	l.close()
	keep(t, map[string][]byte{
		"root.key": readFile(t, l.keyFile), "store": readFile(t, filepath.Join(l.dir, "store")),
		"erase": readFile(t, filepath.Join(l.dir, keystore.EraseFile)), "audit.log": readFile(t, filepath.Join(l.dir, keystore.AuditFile)),
		stream: export.Bytes(), "expected.json": append(text, '\n'),
	})
}

func keep(t *testing.T, files map[string][]byte) {
	mkdir(t, filepath.Join(artefacts, "broken"))
	for name, b := range files {
		must(t, os.WriteFile(filepath.Join(artefacts, name), b, 0o644))
		for bad, how := range broken {
			if len(bad) > len(name) && bad[:len(name)+1] == name+"-" {
				must(t, os.WriteFile(filepath.Join(artefacts, "broken", bad), how.spoil(bytes.Clone(b)), 0o644))
			}
		}
	}
}
