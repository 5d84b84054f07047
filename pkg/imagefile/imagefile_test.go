package imagefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// plainSum is of the disk that every image in testdata holds, of 300 sectors; they were made by qemu-img 10.
const (
	plainSum  = "bcc7d0fa93d5c96904e1ac4442ff892c25ca9b6fb35d99490dd67761bedba78c"
	plainSize = 300 * 512
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code refusal.Code, words ...string) {
	t.Helper()
	if refusal.CodeOf(err) != code || err != nil && refusal.From(err).Hint == "" {
		t.Fatalf("code %d, want %d: %v", refusal.CodeOf(err), code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// copied is the disk that an image gives, and how much of it was given out.
func copied(t *testing.T, i *Image) (disk []byte, given int) {
	t.Helper()
	at := int64(0)
	size, err := i.Copy(t.Context(), func(p []byte, off int64) error {
		if off < at || len(p) == 0 {
			t.Fatalf("%d bytes at %d after %d", len(p), off, at)
		}
		disk = append(append(disk, make([]byte, off-at)...), p...)
		at, given = off+int64(len(p)), given+len(p)
		return nil
	}, func(int64) {})
	must(t, err)
	return append(disk, make([]byte, size-at)...), given
}

func file(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	must(t, err)
	return b
}

func TestRuleA33_QCOW2(t *testing.T) {
	for _, name := range []string{"v2.qcow2", "v3.qcow2", "compressed.qcow2"} {
		i, err := Open(t.Context(), "testdata/"+name, Auto, nil)
		must(t, err)
		disk, given := copied(t, i)
		sum := sha256.Sum256(disk)
		if i.Format != QCOW2 || i.Size != plainSize || hex.EncodeToString(sum[:]) != plainSum {
			t.Errorf("%s: %s, %d bytes, %x", name, i.Format, i.Size, sum)
		}
		if given > 4*block { // 3000 bytes, 2048, and the last 512
			t.Errorf("%s: %d bytes were given out, and its holes are none", name, given)
		}
		must(t, i.Close())
	}
}

func TestRuleA33_Raw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(path)
	must(t, err)
	for _, at := range []int64{5, 3 << 20} {
		_, err := f.WriteAt(bytes.Repeat([]byte{7}, 5000), at)
		must(t, err)
	}
	must(t, f.Truncate(9<<20+100)) // no whole sectors
	must(t, f.Close())
	want, err := os.ReadFile(path)
	must(t, err)
	i, err := Open(t.Context(), path, Auto, nil)
	must(t, err)
	disk, given := copied(t, i)
	if i.Format != Raw || i.Size != 9<<20+100 || !bytes.Equal(disk, want) {
		t.Errorf("%s, %d bytes", i.Format, i.Size)
	}
	if given > 6*block {
		t.Errorf("%d bytes of 10000 were given out", given)
	}
	must(t, i.Close())
}

func TestAPipeIsRawAndEndsWhereItEnds(t *testing.T) {
	want := append(bytes.Repeat([]byte("pipe"), 1<<20), make([]byte, 12345)...)
	i, err := Open(t.Context(), "-", Auto, bytes.NewReader(want))
	must(t, err)
	if disk, _ := copied(t, i); !bytes.Equal(disk, want) || i.Size != -1 {
		t.Errorf("%d bytes of %d, size %d", len(disk), len(want), i.Size)
	}
	_, err = Open(t.Context(), "-", Auto, bytes.NewReader(fixture(t, "v3.qcow2")))
	wantCode(t, err, refusal.Usage, "qcow2", "from beginning to end")
	i, err = Open(t.Context(), "-", Raw, bytes.NewReader(fixture(t, "v3.qcow2")))
	must(t, err)
	if disk, _ := copied(t, i); !bytes.Equal(disk, fixture(t, "v3.qcow2")) {
		t.Error("--format raw does not take bytes as they are")
	}
	// Who waits for a pipe that says nothing can be interrupted.
	silent, _ := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Open(ctx, "-", Auto, silent)
	wantCode(t, err, refusal.Failed, "interrupted")
	i, err = Open(t.Context(), "-", Raw, bytes.NewReader(nil))
	must(t, err)
	_, err = i.Copy(t.Context(), nil, func(int64) {})
	wantCode(t, err, refusal.Usage, "0 bytes")
}

// patched is the image v3.qcow2 with other bytes somewhere.
func patched(t testing.TB, at int, with any) []byte {
	b := bytes.Clone(fixture(t, "v3.qcow2"))
	patch, err := binary.Append(nil, binary.BigEndian, with)
	must(t, err)
	copy(b[at:], patch)
	return b
}

// What leans on other files, and what lies, is refused by name before anything is made of it.
func TestWhatIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		code refusal.Code
		says string
	}{
		"a backing file":           {patched(t, 8, uint64(400)), refusal.Usage, "backing file"},
		"a data file":              {patched(t, 72, uint64(4)), refusal.Usage, "in another file"},
		"encrypted":                {patched(t, 32, uint32(2)), refusal.Usage, "encrypted already"},
		"corrupt":                  {patched(t, 72, uint64(2)), refusal.Damaged, "corrupt"},
		"features of tomorrow":     {patched(t, 72, uint64(1<<40)), refusal.Usage, "features"},
		"version 4":                {patched(t, 4, uint32(4)), refusal.Damaged, "version 4"},
		"qcow":                     {patched(t, 4, uint32(1)), refusal.Usage, "qcow (version 1)"},
		"clusters of 2^40":         {patched(t, 20, uint32(40)), refusal.Damaged, "2^40"},
		"clusters of 2^8":          {patched(t, 20, uint32(8)), refusal.Damaged, "2^8"},
		"a header of 4 GiB":        {patched(t, 100, uint32(1<<32-1)), refusal.Damaged, "header"},
		"no size":                  {patched(t, 24, uint64(0)), refusal.Usage, "0 bytes"},
		"2 PiB":                    {patched(t, 24, uint64(1<<51)), refusal.Usage, "bytes"},
		"2^64 - 1 bytes":           {patched(t, 24, uint64(1<<64-1)), refusal.Usage, "bytes"},
		"more than its table":      {patched(t, 24, uint64(1<<40)), refusal.Damaged, "needs"},
		"a table of 32 GiB":        {patched(t, 36, uint32(1<<32-1)), refusal.Damaged, "first table"},
		"a table of 2^32":          {patched(t, 36, uint32(1<<29)), refusal.Damaged, "first table"},
		"a table past the file":    {patched(t, 36, uint32(1<<20)), refusal.Damaged, "not in the file"},
		"a table nowhere":          {patched(t, 40, uint64(0)), refusal.Damaged, "first table"},
		"a table far away":         {patched(t, 40, uint64(1<<63)), refusal.Damaged, "not in the file"},
		"a table that is not even": {patched(t, 40, uint64(513)), refusal.Damaged, "first table"},
		"a piece of a header":      {fixture(t, "v3.qcow2")[:60], refusal.Damaged, "begin"},
		"vmdk's descriptor":        {[]byte("# Disk DescriptorFile\nversion=1\nRW 100 FLAT \"/etc/shadow\" 0\n"), refusal.Usage, "describes the files"},
		"vmdk without a disk":      {append([]byte("KDMV"), make([]byte, 508)...), refusal.Usage, "describes the files"},
		"vhd":                      {[]byte("conectix and more"), refusal.Usage, "vhd"},
		"nothing":                  {nil, refusal.Usage, "0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, c.b)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Open(t.Context(), path, Auto, nil)
			runtime.ReadMemStats(&after)
			wantCode(t, err, c.code, c.says)
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
				t.Errorf("%d bytes were allocated because of what a header says", took)
			}
		})
	}
	_, err := Open(t.Context(), t.TempDir(), Auto, nil)
	wantCode(t, err, refusal.Usage, "directory")
	_, err = Open(t.Context(), "/nowhere/at/all", Auto, nil)
	wantCode(t, err, refusal.Failed, "no such file")
	_, err = Open(t.Context(), "testdata/v3.qcow2", "iso", nil)
	wantCode(t, err, refusal.Usage, "iso")
	_, err = Open(t.Context(), file(t, []byte("nothing like it")), QCOW2, nil)
	wantCode(t, err, refusal.Damaged, "begin")
}

func TestSnapshotsInsideAreTold(t *testing.T) {
	i, err := Open(t.Context(), file(t, patched(t, 60, uint32(3))), Auto, nil)
	must(t, err)
	if len(i.Notes) != 1 || !strings.Contains(i.Notes[0], "3 snapshots") {
		t.Errorf("%q", i.Notes)
	}
	must(t, i.Close())
}

// A file that ends too early is refused wherever it is cut, unless nothing that counts is gone.
func TestACutFileIsRefused(t *testing.T) {
	for _, name := range []string{"v2.qcow2", "v3.qcow2", "compressed.qcow2"} {
		whole := fixture(t, name)
		for n := 512; n < len(whole); n += 512 {
			i, err := Open(t.Context(), file(t, whole[:n]), QCOW2, nil)
			if err == nil {
				sum := sha256.New()
				at := int64(0)
				_, err = i.Copy(t.Context(), func(p []byte, off int64) error {
					sum.Write(make([]byte, off-at))
					sum.Write(p)
					at = off + int64(len(p))
					return nil
				}, func(int64) {})
				if sum.Write(make([]byte, plainSize-at)); err == nil && hex.EncodeToString(sum.Sum(nil)) != plainSum {
					t.Errorf("%s cut at %d gives another disk", name, n)
				}
				must(t, i.Close())
			}
			if err != nil {
				wantCode(t, err, refusal.Damaged, "damaged")
			}
		}
	}
}

// Whatever stands in the file, it is read without a panic, in order and within its size.
func FuzzQCOW2(f *testing.F) {
	for _, name := range []string{"v2.qcow2", "v3.qcow2", "compressed.qcow2"} {
		f.Add(fixture(f, name))
	}
	f.Add(patched(f, 36, uint32(1<<32-1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		i := &Image{Format: QCOW2, path: "fuzz"}
		h, err := i.readHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil || h.compression != 0 || h.incompatible&featureExtendedL2 != 0 {
			return
		}
		if i.openLibrary(bytes.NewReader(b), h, int64(len(b))) != nil {
			return
		}
		ctx, enough := context.WithCancel(t.Context())
		defer enough()
		at := int64(0)
		_, _ = i.Copy(ctx, func(p []byte, off int64) error {
			if off < at || off+int64(len(p)) > i.Size {
				t.Fatalf("%d bytes at %d after %d, of %d", len(p), off, at, i.Size)
			}
			at = off + int64(len(p))
			return nil
		}, func(done int64) {
			if done > i.Size {
				t.Fatalf("%d of %d", done, i.Size)
			}
			if done > 1<<22 {
				enough() // a small file may be a disk of a petabyte
			}
		})
	})
}

func TestZerosAreLeftOut(t *testing.T) {
	p := make([]byte, 10*block+7)
	p[0], p[3*block-1], p[3*block], p[10*block+6] = 1, 1, 1, 1
	var runs [][2]int64
	must(t, dataOf(p, 100, func(p []byte, off int64) error { runs = append(runs, [2]int64{off, int64(len(p))}); return nil }))
	want := [][2]int64{{100, block}, {100 + 2*block, 2 * block}, {100 + 10*block, 7}}
	if len(runs) != len(want) || runs[0] != want[0] || runs[1] != want[1] || runs[2] != want[2] {
		t.Errorf("%v, want %v", runs, want)
	}
	stop := errors.New("stop")
	if err := dataOf(p, 0, func([]byte, int64) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}
