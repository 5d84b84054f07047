package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// toured is a tour in a directory of its own that prints into the buffer.
func toured(t *testing.T, out *bytes.Buffer) *tour {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	trip, err := newTour(out, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(trip.dir) })
	return trip
}

// finish ends a tour as Run does.
func finish(ctx context.Context, trip *tour, failed error) error {
	return trip.end(ctx, failed, trip.clean(context.WithoutCancel(ctx)))
}

func TestAFailedStepEndsTheTour(t *testing.T) {
	var out bytes.Buffer
	trip, late := toured(t, &out), false
	err := trip.play(t.Context(), []step{
		{"fine", func(_ context.Context, t *tour) error { return t.tell.all(check{true, "so it is", nil}) }},
		{"bad", func(_ context.Context, t *tour) error { return t.tell.all(check{false, "the sky is green", "blue"}) }},
		{"never", func(context.Context, *tour) error { late = true; return nil }},
	})
	err = finish(t.Context(), trip, err)
	if late || refusal.CodeOf(err) != refusal.Failed {
		t.Error(late, err)
	}
	for _, part := range []string{"step 2", "bad", "the sky is green", "blue"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if trip.tell.checks != 1 || strings.Contains(out.String(), "✓ the sky") || strings.Contains(out.String(), "All good") {
		t.Error(out.String())
	}
	if !missing(trip.dir) {
		t.Error("the directory is still there")
	}
}

func TestAPanicIsAFailureLikeOthers(t *testing.T) {
	var out bytes.Buffer
	trip := toured(t, &out)
	err := trip.play(t.Context(), []step{{"boom", func(context.Context, *tour) error { panic("a mistake of ours") }}})
	if err = finish(t.Context(), trip, err); err == nil || !strings.Contains(err.Error(), "a mistake of ours") {
		t.Error(err)
	}
	if !missing(trip.dir) {
		t.Error("the directory is still there")
	}
}

func TestAnInterruptIsNoReport(t *testing.T) {
	var out bytes.Buffer
	trip := toured(t, &out)
	ctx, cancel := context.WithCancel(t.Context())
	err := trip.play(ctx, []step{{"long", func(context.Context, *tour) error { cancel(); return nil }}})
	if err = finish(ctx, trip, err); err == nil || err.Error() != "demo: interrupted" {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "Interrupted. Nothing is left behind.") {
		t.Error(out.String())
	}
}

// full is a stdout that takes no more.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestAReaderThatLeavesEndsTheTour(t *testing.T) {
	trip := toured(t, new(bytes.Buffer))
	trip.tell = newTeller(full{}, trip.dir)
	err := trip.play(t.Context(), []step{{"silent", func(context.Context, *tour) error { return nil }}})
	if !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
}

// TestWhatIsLeftIsTold: a tour that went well and left something has failed.
func TestWhatIsLeftIsTold(t *testing.T) {
	var out bytes.Buffer
	trip := toured(t, &out)
	err := trip.end(t.Context(), nil, []string{"the mount /x"})
	if refusal.CodeOf(err) != refusal.Failed || !strings.Contains(out.String(), "left behind: the mount /x") {
		t.Error(err, out.String())
	}
}

func TestLackingToolsNamePackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	lacking := strings.Join(lackingTools(), "")
	if !strings.Contains(lacking, "nbdfuse, mkfs.ext4, mount, umount, losetup") || !strings.Contains(lacking, "apt install libnbd-bin e2fsprogs mount`") {
		t.Error(lacking)
	}
	if m, raw := chooseMedium().(rawNBD); !raw || !strings.Contains(m.name(), lacking) {
		t.Error("without tools a file system was chosen, or it is not said why not")
	}
}

func TestMountTable(t *testing.T) {
	if got := unescape(`/a\040b\134c`); got != `/a b\c` {
		t.Error(got)
	}
	if len(mountsUnder("")) == 0 {
		t.Error("a positive control: no mount at all was found")
	}
	if at := mountsUnder(t.TempDir()); len(at) != 0 {
		t.Error(at)
	}
}

func TestColourIsForTerminals(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !colourful(null) || colourful(new(bytes.Buffer)) {
		t.Error("colour is for terminals, and for them only")
	}
	t.Setenv("NO_COLOR", "1")
	if colourful(null) {
		t.Error("NO_COLOR is not honoured")
	}
}

func TestCommandLinesCanBeTyped(t *testing.T) {
	var out bytes.Buffer
	tell := newTeller(&out, "/tmp/nbdcrypt-1")
	tell.command("nbdfuse", "/tmp/nbdcrypt-1/nbd/disk", "nbd+unix:///vault?socket=/tmp/nbdcrypt-1/run/nbd.sock")
	want := "    $ nbdfuse $D/nbd/disk \"nbd+unix:///vault?socket=$D/run/nbd.sock\"\n"
	if out.String() != want {
		t.Errorf("%q, not %q", out.String(), want)
	}
}

func TestWhatAServerLacks(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lacking := strings.Join(findBootable(self, "/no/kernel").lacking, "; ")
	if runtime.GOARCH != "amd64" {
		if !strings.Contains(lacking, "x86-64") {
			t.Error(lacking)
		}
		return
	}
	if !strings.Contains(lacking, "qemu-system-x86_64, syslinux, mcopy") || !strings.Contains(lacking, "apt install qemu-system-x86 syslinux mtools") || strings.Contains(lacking, "kernel") {
		t.Error(lacking)
	}
}

func TestAKernelThatIsNotThere(t *testing.T) {
	if _, err := newTour(new(bytes.Buffer), Options{Kernel: "/no/kernel"}); refusal.CodeOf(err) != refusal.Usage {
		t.Error(err)
	}
}

// The archive is one that cpio would read: headers of 110 bytes, everything at multiples of 4.
func TestArchive(t *testing.T) {
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	archiveFile(w, 1, "init", 0o100755, []byte("hello"))
	archiveFile(w, 2, "TRAILER!!!", 0, nil)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "070701" + "00000001" + "000081ed" + strings.Repeat("0", 16) + "00000001" + "00000000" + "00000005" + strings.Repeat("0", 32) + "00000005" + "00000000" +
		"init\x00\x00" + "hello\x00\x00\x00" + "070701" + "00000002" + strings.Repeat("0", 24) + "00000001" + strings.Repeat("0", 48) + "0000000b" + "00000000" + "TRAILER!!!\x00\x00\x00\x00"
	if got := out.String(); got != want {
		t.Errorf("%q\nnot\n%q", got, want)
	}
}

// Only where it is the first program of a machine, and was given a word, is this program the guest.
func TestThisIsNoGuest(t *testing.T) {
	t.Setenv(guestWord, "a word")
	if Guest() {
		t.Error("a test is taken for the guest")
	}
}
