package cryptdev_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/aes256"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

// rig is a layer on some pool that can be opened again and again.
type rig struct {
	t      testing.TB
	pool   pool.Pool
	header layer.Header
	size   int64
	key    []byte
	layers []*layer.Layer
}

func newRig(t testing.TB, p pool.Pool, size int64, sector int, encrypted bool) *rig {
	t.Helper()
	r := &rig{t: t, pool: p, size: size, header: layer.Header{ID: uuid.New(), Encrypted: encrypted, SectorSize: sector}}
	r.key = make([]byte, xts.KeySize)
	if _, err := rand.Read(r.key); err != nil {
		t.Fatal(err)
	}
	if err := r.create(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) create() error { return layer.Create(r.t.Context(), r.pool, r.header, r.size) }

// beside is a rig for another layer of the disk, which has a key of its own, as large as asked for. The layer is not made yet.
func (r *rig) beside(size int64) *rig {
	n := *r
	n.header.ID, n.size, n.layers = uuid.New(), size, nil
	n.key = bytes.Clone(r.key)
	n.key[0]++
	if _, err := rand.Read(n.key[1:32]); err != nil {
		r.t.Fatal(err)
	}
	return &n
}

func (r *rig) cipher() *xts.Cipher {
	r.t.Helper()
	if !r.header.Encrypted {
		return nil
	}
	c, err := xts.New(aes256.InsecureMemory(xts.Size), r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) layer(o layer.Options) cryptdev.Layer {
	r.t.Helper()
	l, err := r.tryLayer(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func (r *rig) tryLayer(o layer.Options) (cryptdev.Layer, error) {
	l, err := layer.Open(r.t.Context(), r.pool, r.header, r.size, o)
	if err != nil {
		return cryptdev.Layer{}, err
	}
	r.t.Cleanup(func() { _ = l.Close() })
	r.layers = append(r.layers, l)
	return cryptdev.Layer{Layer: l, Cipher: r.cipher(), Size: r.size}, nil
}

// closeAll closes what was opened, as a detach does.
func (r *rig) closeAll() {
	for _, l := range r.layers {
		_ = l.Close()
	}
	r.layers = nil
}

// open opens the layer as a disk of one layer. What was open before is closed: two openings would punch holes into each
// other's data.
func (r *rig) open() *cryptdev.Device {
	r.t.Helper()
	r.closeAll()
	return cryptdev.New([]cryptdev.Layer{r.layer(layer.Options{})}, r.size, false)
}

// over opens this rig's layer on top of below's, which is frozen.
func (r *rig) over(below *rig) *cryptdev.Device {
	r.t.Helper()
	return cryptdev.New([]cryptdev.Layer{r.layer(layer.Options{}), below.layer(layer.Options{ReadOnly: true})}, r.size, false)
}

type device interface {
	ReadAt([]byte, int64) (int, error)
	WriteAt([]byte, int64) (int, error)
	WriteAtFUA([]byte, int64) (int, error)
	ZeroAt(off, n int64, noHole bool) error
	TrimAt(off, n int64) error
	Sync() error
}

func write(t testing.TB, d device, p []byte, off int64) {
	t.Helper()
	if n, err := d.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("WriteAt(%d bytes, %d): %d, %v", len(p), off, n, err)
	}
}

func sync(t testing.TB, d device) {
	t.Helper()
	if err := d.Sync(); err != nil {
		t.Fatalf("Sync: %v", err)
	}
}

func read(t testing.TB, d device, off int64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xcc}, n)
	if got, err := d.ReadAt(p, off); err != nil || got != n {
		t.Fatalf("ReadAt(%d bytes, %d): %d, %v", n, off, got, err)
	}
	return p
}

func expect(t testing.TB, d device, off int64, want []byte) {
	t.Helper()
	if got := read(t, d, off, len(want)); !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("byte %d of %d from %d on is %#x, want %#x", i, len(want), off, got[i], want[i])
			}
		}
	}
}

func pattern(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
