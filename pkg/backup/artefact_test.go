package backup

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/xts"
)

// artefacts holds a chain of every version of the format that was ever written, and broken ones beside. It is only added to.
const artefacts = "../../testdata/backup"

var update = flag.Bool("update", false, "write the artefact of this version, where there is none")

// artefact is what stands beside the files: the public key that signed them, the key of each one's data, and what the chain restores to.
type artefact struct {
	Public string            `json:"public_key"`
	Chain  []string          `json:"chain"` // the full one first
	Keys   map[string]string `json:"keys"`
	Size   int64             `json:"size"`
	Sector int               `json:"sector_size"`
	SHA256 string            `json:"sha256"`
}

const artefactSize = 30*BlockSize + 512

// artefactDisk is the disk as it is at each backup.
func artefactDisk(n int) []byte {
	p := make([]byte, artefactSize)
	for i := range p {
		p[i] = byte(i>>12) ^ byte(i)
	}
	if n > 0 {
		copy(p[5*BlockSize:], bytes.Repeat([]byte("second"), 100))
		clear(p[9*BlockSize : 20*BlockSize])
	}
	return p
}

func cipherOf(t *testing.T, key []byte) *xts.Cipher {
	t.Helper()
	c, err := xts.New(make([]byte, xts.Size), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func makeArtefact(t *testing.T, dir string) {
	t.Helper()
	a := artefact{Public: hex.EncodeToString(public(signer)), Keys: map[string]string{}, Size: artefactSize, Sector: 512}
	h := header(artefactSize)
	h.Store, h.Disk = uuid.MustParse("5e000000-0000-4000-8000-000000000000"), uuid.MustParse("d1000000-0000-4000-8000-000000000000")
	for n, extents := range [][]Extent{{{0, 30, false}, {30, 1, false}}, {{5, 1, false}, {9, 11, true}}} {
		name := []string{"full", "incremental"}[n]
		key := sha256.Sum256([]byte(name))
		dek := append(key[:], bytes.Repeat([]byte{byte(n)}, 32)...)
		h.ID, h.Name = uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)), name
		disk, c := append(artefactDisk(n), make([]byte, BlockSize)...), cipherOf(t, dek)
		fill := func(p []byte, off int64) error {
			c.Encrypt(p, disk[off:off+int64(len(p))], 512, uint64(off)/512)
			return nil
		}
		m := makeBackupOf(t, h, fill, extents...)
		if err := os.WriteFile(filepath.Join(dir, name+".nbdbackup"), m.bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		a.Chain, a.Keys[name] = append(a.Chain, name), hex.EncodeToString(dek)
		h.Parent, h.ParentManifest, h.Depth = h.ID, m.Manifest, n+1
	}
	sum := sha256.Sum256(artefactDisk(1))
	a.SHA256 = hex.EncodeToString(sum[:])
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "chain.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	makeBroken(t, dir)
}

// makeBroken writes what is wrong in one way each; the name says how, and what the reader has to say of it stands in broken.json.
func makeBroken(t *testing.T, dir string) {
	t.Helper()
	good, err := os.ReadFile(filepath.Join(dir, "incremental.nbdbackup"))
	if err != nil {
		t.Fatal(err)
	}
	const page, data = HeaderSize, HeaderSize + PageSize
	mine := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	says := map[string]string{}
	for _, b := range []struct {
		name, says string
		spoil      func(p []byte) []byte
	}{
		{"unknown-version", "version 2", func(p []byte) []byte { p[8] = 2; seal(p[:page]); return p }},
		{"unknown-flag", "flags 0x7", func(p []byte) []byte { p[12] |= 4; seal(p[:page]); return p }},
		{"flipped-header", "header", func(p []byte) []byte { p[300] ^= 1; return p }},
		{"flipped-page", "page 0", func(p []byte) []byte { p[page+70] ^= 1; return p }},
		{"flipped-chunk", "chunk 0 of page 0", func(p []byte) []byte { p[data+10] ^= 1; return p }},
		{"cut", "ends at byte", func(p []byte) []byte { return p[:len(p)-100] }},
		{"goes-on", "goes on", func(p []byte) []byte { return append(p, 0) }},
		{"extents-overlap", "can follow", func(p []byte) []byte { p[page+pageHead+extentSize] = 5; seal(p[page:data]); return p }},
		{"other-parent", "another backup", func(p []byte) []byte { p[64] ^= 1; seal(p[:page]); return p }},
		{"signed-by-another", "not under the pinned one", func(p []byte) []byte {
			at := len(p) - trailerSize
			copy(p[at+80:], public(mine))
			copy(p[at+signatureAt:], ed25519.Sign(mine, signed(p[at:])))
			return p
		}},
	} {
		if err := os.WriteFile(filepath.Join(dir, "broken-"+b.name+".nbdbackup"), b.spoil(bytes.Clone(good)), 0o644); err != nil {
			t.Fatal(err)
		}
		says[b.name] = b.says
	}
	text, err := json.MarshalIndent(says, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readJSON reads what stands beside an artefact.
func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// versions are the folders of artefacts; the one of this version is made where that is asked for.
func versions(t *testing.T) []string {
	t.Helper()
	if *update {
		dir := filepath.Join(artefacts, "v1")
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("artefacts are never changed")
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		makeArtefact(t, dir)
	}
	list, err := filepath.Glob(filepath.Join(artefacts, "v*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no artefacts: %v", err)
	}
	return list
}

// Every version that was ever written is verified and restored, to the byte.
func TestEveryVersionIsRead(t *testing.T) {
	for _, dir := range versions(t) {
		var a artefact
		readJSON(t, filepath.Join(dir, "chain.json"), &a)
		pinned := unhex(t, a.Public)
		disk, before := make([]byte, blocks(a.Size)*BlockSize), Verified{}
		for i, name := range a.Chain {
			b, err := os.ReadFile(filepath.Join(dir, name+".nbdbackup"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := verifyBy(b, pinned)
			if err == nil && i > 0 {
				err = Follows(v, before)
			}
			if err != nil {
				t.Fatalf("%s, %s: %v", dir, name, err)
			}
			c := cipherOf(t, unhex(t, a.Keys[name]))
			err = Restore(t.Context(), bytes.NewReader(b), v, func(p []byte, off int64) error {
				c.Decrypt(disk[off:off+int64(len(p))], p, a.Sector, uint64(off)/512)
				return nil
			}, func(off, n int64) error { clear(disk[off : off+n]); return nil }, func(int64) {})
			if err != nil {
				t.Fatalf("%s, %s: %v", dir, name, err)
			}
			before = v
		}
		if sum := sha256.Sum256(disk[:a.Size]); hex.EncodeToString(sum[:]) != a.SHA256 {
			t.Errorf("%s restores to something else", dir)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Broken artefacts are refused, and it is said why.
func TestBrokenArtefactsAreRefused(t *testing.T) {
	for _, dir := range versions(t) {
		var a artefact
		var says map[string]string
		readJSON(t, filepath.Join(dir, "chain.json"), &a)
		readJSON(t, filepath.Join(dir, "broken.json"), &says)
		for name, want := range says {
			b, err := os.ReadFile(filepath.Join(dir, "broken-"+name+".nbdbackup"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = verifyBy(b, unhex(t, a.Public))
			wantDamaged(t, name, err)
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
	}
}
