package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// TestScanFindsAcrossBorders puts the text at every place round the chunks' borders, for chunks shorter and longer than it.
func TestScanFindsAcrossBorders(t *testing.T) {
	text := []byte("needle")
	for _, chunk := range []int{1, 2, 5, 6, 7, 16, 64} {
		for at := range 80 {
			hay := bytes.Repeat([]byte{'.'}, 100)
			copy(hay[at:], text)
			hits, length, err := scan(iotest.HalfReader(bytes.NewReader(hay)), text, chunk)
			if hits != 1 || length != 100 || err != nil {
				t.Fatalf("chunks of %d, text at %d: %d hits in %d bytes, %v", chunk, at, hits, length, err)
			}
		}
	}
}

// TestScanControl: what is not there is not found, and what is nearly there neither.
func TestScanControl(t *testing.T) {
	for hay, want := range map[string]int{
		"": 0, "needl": 0, "needneedl": 0, "Needle": 0, "needle": 1, "needleneedle": 2, "needneedle": 1,
	} {
		if hits, _, err := scan(strings.NewReader(hay), []byte("needle"), 4); hits != want || err != nil {
			t.Errorf("%q: %d hits, not %d, %v", hay, hits, want, err)
		}
	}
	if hits, _, _ := scan(strings.NewReader("aaaa"), []byte("aa"), 3); hits != 3 {
		t.Errorf("overlapping texts: %d hits, not 3", hits)
	}
}

// TestScanSaysWhatItCouldNotDo: a search that failed must not look like one that found nothing.
func TestScanSaysWhatItCouldNotDo(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := scan(iotest.ErrReader(broken), []byte("x"), 8); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, _, err := scan(strings.NewReader("x"), nil, 8); err == nil {
		t.Error("a search for nothing succeeded")
	}
	if _, err := scanTree(filepath.Join(t.TempDir(), "missing"), []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestScanTree(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	text := []byte("the treasure")
	put := func(path string, parts ...[]byte) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	deep := filepath.Join(dir, "a", "b", "hit")
	put(deep, make([]byte, scanChunk-5), text, make([]byte, scanChunk))
	put(filepath.Join(dir, "none"), []byte("nothing"))
	put(filepath.Join(outside, "hit"), text)
	if err := os.Symlink(filepath.Join(outside, "hit"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	all, err := scanTree(dir, text)
	if err != nil || all.hits != 1 || all.files != 2 || !slices.Equal(all.in, []string{deep}) {
		t.Errorf("%+v, %v", all, err)
	}
	if want := int64(2*scanChunk - 5 + len(text) + len("nothing")); all.bytes != want {
		t.Errorf("%d bytes, not %d", all.bytes, want)
	}
}

func FuzzScan(f *testing.F) {
	seeds := [][2]string{{"xxneedlexx", "needle"}, {"aaaa", "aa"}, {"\x00\x00", "\x00"}}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s[0]), []byte(s[1]), 3)
	}
	f.Fuzz(func(t *testing.T, hay, text []byte, chunk int) {
		if len(text) == 0 || chunk < 1 || chunk > 1<<12 {
			return
		}
		want := 0
		for i := range hay {
			if bytes.HasPrefix(hay[i:], text) {
				want++
			}
		}
		if hits, length, err := scan(bytes.NewReader(hay), text, chunk); hits != want || length != int64(len(hay)) || err != nil {
			t.Errorf("%d hits, not %d; %d bytes, not %d; %v", hits, want, length, len(hay), err)
		}
	})
}
