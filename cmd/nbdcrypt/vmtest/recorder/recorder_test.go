package recorder

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/nbd/nbdtest"
)

func newDisk(t *testing.T, size int64) *Disk {
	t.Helper()
	d, err := New(t.TempDir(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// left is what an image holds.
func left(t *testing.T, d *Disk, cut Point, keep Keep, seed uint64) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := d.Image(f, cut, keep, seed); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil || int64(len(data)) != d.size {
		t.Fatal(len(data), err)
	}
	return data
}

// fill writes sectors of one letter.
func fill(t *testing.T, d *Disk, first, n int, letter byte, fua bool) {
	t.Helper()
	if _, err := d.write(bytes.Repeat([]byte{letter}, n*Sector), int64(first*Sector), fua); err != nil {
		t.Fatal(err)
	}
}

func flushIt(t *testing.T, d *Disk) {
	t.Helper()
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

// letters is an image as one letter a sector; "?" where a sector is of two pieces.
func letters(data []byte) string {
	var b bytes.Buffer
	for s := 0; s < len(data); s += Sector {
		c := data[s]
		switch {
		case bytes.Count(data[s:s+Sector], []byte{c}) != Sector:
			c = '?'
		case c == 0:
			c = '.'
		}
		b.WriteByte(c)
	}
	return b.String()
}

func TestDevice(t *testing.T) {
	nbdtest.RunDevice(t, func(t *testing.T) nbd.Device { return newDisk(t, 4<<20) })
}

// The image has what a flush covers, at any moment before and after.
func TestFlushedIsThere(t *testing.T) {
	d := newDisk(t, 4*Sector)
	fill(t, d, 0, 4, 'a', false)
	before := d.Now()
	flushIt(t, d)
	flushed := d.Now()
	fill(t, d, 1, 1, 'b', false)
	fill(t, d, 2, 1, 'c', true)
	for _, c := range []struct {
		cut  Point
		keep Keep
		want string
	}{
		{0, Everything, "...."},
		{before, Nothing, "...."},
		{before, Everything, "aaaa"},
		{flushed - 1, Nothing, "...."}, // not answered yet
		{flushed, Nothing, "aaaa"},
		{d.Now(), Nothing, "aaca"},
		{d.Now(), Everything, "abca"},
	} {
		if got := letters(left(t, d, c.cut, c.keep, 1)); got != c.want {
			t.Errorf("cut at %d, %v kept: %q, want %q", c.cut, c.keep, got, c.want)
		}
	}
}

// A flush says nothing about a write that was in flight beside it.
func TestFlushBesideAWrite(t *testing.T) {
	d := newDisk(t, 2*Sector)
	fill(t, d, 0, 2, 'a', false)
	d.flushes = []flush{{begun: d.writes[0].ended - 1, ended: d.writes[0].ended + 1}}
	if got := letters(left(t, d, d.Now()+1, Nothing, 1)); got != ".." {
		t.Errorf("%q", got)
	}
}

// Every combination of what is not covered turns up, sectors are never torn, and what is durable stays.
func TestAnySubset(t *testing.T) {
	d := newDisk(t, 5*Sector)
	fill(t, d, 0, 5, 'a', false)
	flushIt(t, d)
	fill(t, d, 0, 2, 'b', false)
	fill(t, d, 1, 2, 'c', false)
	if err := d.TrimAt(3*Sector, Sector); err != nil {
		t.Fatal(err)
	}
	some, torn := map[string]bool{}, map[string]bool{}
	for seed := range uint64(400) {
		some[letters(left(t, d, d.Now(), Some, seed))] = true
		torn[letters(left(t, d, d.Now(), Torn, seed))] = true
	}
	if len(some) != 2*2*2 {
		t.Errorf("whole writes give %d images: %v", len(some), some)
	}
	// Sector 0: a, b; 1: a, b, c; 2: a, c; 3: a, none.
	if len(torn) != 2*3*2*2 {
		t.Errorf("torn writes give %d images: %v", len(torn), torn)
	}
	for image := range torn {
		if image[4] != 'a' || bytes.ContainsRune([]byte(image), '?') {
			t.Errorf("image %q", image)
		}
	}
}

// A write that was answered before a durable one does not come back over it.
func TestNothingOldOverDurable(t *testing.T) {
	d := newDisk(t, Sector)
	fill(t, d, 0, 1, 'a', false)
	fill(t, d, 0, 1, 'b', true)
	for seed := range uint64(50) {
		if got := letters(left(t, d, d.Now(), Some, seed)); got != "b" {
			t.Fatalf("%q", got)
		}
	}
}

// The riskiest moment is right before the flush that covers most.
func TestRiskiest(t *testing.T) {
	d := newDisk(t, 8*Sector)
	var from, want Point
	for i, n := range []int{8, 1, 5, 2, 7} {
		fill(t, d, 0, n, 'a', false)
		switch i {
		case 1:
			from = d.Now()
		case 2:
			want = d.Now() + 1 // the flush has begun
		}
		flushIt(t, d)
	}
	if got := d.Riskiest(from, d.flushes[3].begun); got != want {
		t.Errorf("%d, want %d", got, want)
	}
	if got := d.Riskiest(d.Now(), d.Now()); got != d.Now() {
		t.Errorf("where no flush began: %d", got)
	}
}

// A disk that lies has what was flushed while it did not.
func TestLie(t *testing.T) {
	d := newDisk(t, 3*Sector)
	fill(t, d, 0, 1, 'a', false)
	flushIt(t, d)
	honest := d.Now()
	fill(t, d, 0, 1, 'b', false)
	fill(t, d, 1, 1, 'b', true)
	flushIt(t, d)
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	left, err := d.Lie(f, honest, d.Now())
	if err != nil || left != (Left{Durable: Sector, Volatile: 2 * Sector}) {
		t.Errorf("%+v, %v", left, err)
	}
	if data, err := os.ReadFile(f.Name()); err != nil || letters(data) != "a.." {
		t.Errorf("%q, %v", letters(data), err)
	}
}

func TestServe(t *testing.T) {
	d := newDisk(t, 1<<20)
	heard := make(chan string, 4)
	at, end, err := d.Serve(filepath.Join(t.TempDir(), "s"), func(line string) { heard <- line })
	if err != nil {
		t.Fatal(err)
	}
	pool, marks := dial(t, at.Pool), dial(t, at.Marks)
	if _, err := pool.WriteAt(bytes.Repeat([]byte("a"), Sector), Sector); err != nil {
		t.Fatal(err)
	}
	if err := pool.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := letters(left(t, d, d.Now(), Nothing, 1))[:3]; got != ".a." || d.Flushes() != 1 {
		t.Errorf("%q after %d flushes", got, d.Flushes())
	}
	for _, said := range []string{"one\n", "two\n", "no line", "three\nfour\n"} {
		_, err := marks.WriteAt(append([]byte(said), make([]byte, Sector-len(said))...), 0)
		if one := said == "one\n" || said == "two\n"; one != (err == nil) {
			t.Errorf("%q: %v", said, err)
		}
	}
	if n := len(heard); n != 2 || <-heard != "one" || <-heard != "two" {
		t.Errorf("%d lines were heard, or others", n)
	}
	for _, c := range []*nbdclient.Client{pool, marks} {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T, uri string) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
