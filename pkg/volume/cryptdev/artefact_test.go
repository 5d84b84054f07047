package cryptdev_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

// artefacts holds a disk of every version of the format that was ever written. It is only added to.
const artefacts = "../../../testdata/layer"

var update = flag.Bool("update", false, "write the artefact of this version, where there is none")

// artefact is what stands beside the files: what the disk is, and what it reads as.
type artefact struct {
	Layer      uuid.UUID `json:"layer"`
	SectorSize int       `json:"sector_size"`
	Size       int64     `json:"size"`
	Key        string    `json:"key"`
	SHA256     string    `json:"sha256"`
}

const artefactSize = 64<<10 + 512

// makeArtefact writes a disk that has blocks in every state, over several generations of its map.
func makeArtefact(t *testing.T, dir string) {
	t.Helper()
	p, err := pool.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, p, artefactSize, 512, true)
	d := r.open()
	for i := range 3 {
		write(t, d, pattern(byte('a'+i), 9000), int64(i*13000+100))
		sync(t, d)
	}
	if err := errors.Join(d.TrimAt(4096, 4096), d.ZeroAt(40960, 4096, true), d.Sync()); err != nil {
		t.Fatal(err)
	}
	write(t, d, []byte("the end"), artefactSize-7)
	sync(t, d)
	sum := sha256.Sum256(read(t, d, 0, artefactSize))
	text, err := json.MarshalIndent(artefact{r.header.ID, 512, artefactSize, hex.EncodeToString(r.key), hex.EncodeToString(sum[:])}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "disk.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// openArtefact opens a copy of an artefact: what is committed stays as it is.
func openArtefact(t *testing.T, from string) (*rig, artefact) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	var a artefact
	text, err := os.ReadFile(filepath.Join(dir, "disk.json"))
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pool.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, pool: p, size: a.Size, key: key,
		header: layer.Header{ID: a.Layer, Encrypted: true, SectorSize: a.SectorSize}}, a
}

// Every version that was ever written is read, to the byte, and can be written on.
func TestEveryVersionIsRead(t *testing.T) {
	if *update {
		dir := filepath.Join(artefacts, "v1")
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("artefacts are never changed")
		}
		makeArtefact(t, dir)
	}
	versions, err := filepath.Glob(filepath.Join(artefacts, "v*"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("no artefacts: %v", err)
	}
	for _, v := range versions {
		r, a := openArtefact(t, v)
		d := r.open()
		content := read(t, d, 0, int(a.Size))
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != a.SHA256 {
			t.Errorf("%s reads as something else", v)
		}
		write(t, d, []byte("more"), 5000)
		sync(t, d)
		copy(content[5000:], "more")
		if got := read(t, r.open(), 0, int(a.Size)); !bytes.Equal(got, content) {
			t.Errorf("%s can't be written on", v)
		}
	}
}

// A later version, an unknown flag and the like are refused by name, before anything is written.
func TestUnknownVersionIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		at   int64
		want error
	}{"magic": {0, layer.ErrDamaged}, "version": {8, layer.ErrVersion}} {
		r, _ := openArtefact(t, filepath.Join(artefacts, "v1"))
		paths, err := r.pool.Segments(layer.MapName(r.header.ID))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		b[c.at]++
		b[4096+c.at]++ // both copies
		if err := os.WriteFile(paths[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := layer.Open(t.Context(), r.pool, r.header, r.size, layer.Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(paths[0]); err != nil || !bytes.Equal(after, b) {
			t.Errorf("%s: the map was written to (%v)", name, err)
		}
	}
}
