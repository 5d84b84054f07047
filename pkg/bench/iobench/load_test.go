package iobench

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdclient"
)

// TestMain lets the test's own binary be the server made of go-nbd, as the program is.
func TestMain(m *testing.M) {
	if !Main() {
		os.Exit(m.Run())
	}
}

func here(t *testing.T) *site {
	t.Helper()
	at := &site{Name: "test", Dir: t.TempDir(), run: t.TempDir()}
	if err := at.begin(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := at.end(); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{at.Dir, at.run} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left in %s: %v", dir, left)
			}
		}
	})
	return at
}

// goNBDServed is a disk that go-nbd serves.
func goNBDServed(t *testing.T, size int64) *export {
	t.Helper()
	s, err := newPeer(nil, goNBDCommand)(t.Context(), here(t))
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.disk(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.close(context.Background()) })
	return e
}

// TestFill: a disk that was filled has no zeros, and no two pieces that are the same.
func TestFill(t *testing.T) {
	const size = 5<<20 + 512
	e := goNBDServed(t, size)
	if err := fill(t.Context(), e.uri, size); err != nil {
		t.Fatal(err)
	}
	client, err := nbdclient.Dial(t.Context(), e.uri)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect()
	seen := map[string]bool{}
	for off := int64(0); off < size; off += 512 {
		sector := make([]byte, 512)
		if _, err := client.ReadAt(sector, off); err != nil {
			t.Fatal(err)
		}
		if seen[string(sector)] || bytes.Equal(sector, make([]byte, 512)) {
			t.Fatalf("the sector at %d is zeros, or one that was there before", off)
		}
		seen[string(sector)] = true
	}
}

// TestFUA: it writes for as long as it should, and counts what it wrote.
func TestFUA(t *testing.T) {
	const size = 8 << 20
	e := goNBDServed(t, size) // knows no FUA, and does not look
	got, err := fua(t.Context(), column{block: 4096, depth: 4}, e.uri, 3, turn{length: 100 * time.Millisecond, size: size})
	if err != nil || got.ops == 0 || got.bytes != got.ops*4096 || got.took < 100*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	if why := e.flags.refuses(column{kind: byFUA}); why != "it has no FUA" {
		t.Error(why)
	}
	if why := e.flags.refuses(column{fsync: 16}); why != "it has no flush" {
		t.Error(why)
	}
	if why := abilities(1<<2 | 1<<3).refuses(column{kind: byFUA, fsync: 16}); why != "" {
		t.Error(why)
	}
}

// TestServerDies: a load on a server that died fails, and what the server said last is known.
func TestServerDies(t *testing.T) {
	e := goNBDServed(t, 1<<20)
	e.close(t.Context())
	if _, err := fua(t.Context(), column{block: 4096, depth: 1}, e.uri, 1, turn{length: time.Second, size: 1 << 20}); err == nil {
		t.Error("it was loaded")
	}
	if err := e.ended(); err == nil || !strings.Contains(err.Error(), "the server ended") {
		t.Error(err)
	}
}

// TestServerDoesNotStart: it is said why, at once, and nothing is left.
func TestServerDoesNotStart(t *testing.T) {
	at := here(t)
	command := func(*site, string, string, int64) *exec.Cmd {
		return exec.Command("sh", "-c", "echo one >&2; echo no such luck >&2; exit 3")
	}
	s, _ := newPeer(plainImage, command)(t.Context(), at)
	begun := time.Now()
	if _, err := s.disk(t.Context(), 4096); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such luck") {
		t.Error(err)
	}
	if took := time.Since(begun); took > readyTime/2 {
		t.Errorf("it took %v", took)
	}
	if left, _ := os.ReadDir(at.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFails: a contestant that could not be started has failed, in every row.
func TestFails(t *testing.T) {
	st := &stand{failed: errors.New("no such luck")}
	if got := (&session{}).sample(t.Context(), &row{}, st, 0); got.Failed != "no such luck" {
		t.Errorf("%+v", got)
	}
}

// TestRoom: what doesn't fit is not begun.
func TestRoom(t *testing.T) {
	at := &site{Name: "test", Dir: t.TempDir()}
	if err := at.begin(1 << 62); err == nil || !strings.Contains(err.Error(), "free") {
		t.Error(err)
	}
	if err := at.end(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(at.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSites(t *testing.T) {
	dir := t.TempDir()
	sites, _, err := findSites(dir, dir)
	if err != nil || len(sites) == 0 || sites[len(sites)-1].Dir != dir || sites[len(sites)-1].FileSystem == "" {
		t.Errorf("%+v, %v", sites, err)
	}
	if _, _, err := findSites(filepath.Join(dir, "none"), dir); err == nil || !strings.Contains(err.Error(), "none") {
		t.Error(err)
	}
}

// TestRun: a program that hangs ends with its time, and one that fails says why.
func TestRun(t *testing.T) {
	if out, err := run(t.Context(), time.Minute, "echo", "x"); err != nil || string(out) != "x\n" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := run(t.Context(), 50*time.Millisecond, "sleep", "1000"); err == nil || !strings.Contains(err.Error(), "not done after 50ms") {
		t.Error(err)
	}
	if _, err := run(t.Context(), time.Minute, "sh", "-c", "echo a >&2; echo b >&2; exit 1"); err == nil || !strings.HasSuffix(err.Error(), ": b") {
		t.Error(err)
	}
}
