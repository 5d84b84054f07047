package secret

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbdcrypt/xts"
)

// vmFlags returns what the kernel says of the mapping that holds p (proc(5), smaps).
func vmFlags(t *testing.T, p *byte) string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &from, &to); n == 2 {
			at := uintptr(unsafe.Pointer(p))
			inside = from <= at && at < to
		}
		if flags, ok := strings.CutPrefix(s.Text(), "VmFlags:"); ok && inside {
			return flags + " "
		}
	}
	t.Fatalf("no mapping holds %p", p)
	return ""
}

func TestMemoryIsLockedAndLeftOutOfDumpsAndChildren(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		k, err := a.key(32, Purpose{}, false)
		if err != nil {
			t.Fatal(err)
		}
		flags := vmFlags(t, &k.Bytes()[0])
		for flag, means := range map[string]string{"lo": "locked", "dd": "not dumped", "dc": "not inherited"} {
			if !strings.Contains(flags, " "+flag+" ") {
				t.Errorf("not %s: %s", means, flags)
			}
		}
		if flags := vmFlags(t, new(byte)); strings.Contains(flags, " dc ") {
			t.Errorf("the test sees the flag everywhere: %s", flags)
		}
	})
}

func TestGuardPagesFault(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		k, err := a.key(chunkSize, Purpose{}, false)
		if err != nil {
			t.Fatal(err)
		}
		b := k.Bytes()
		for _, offset := range []int{-1, -os.Getpagesize(), chunkSize, chunkSize + os.Getpagesize() - 1} {
			if !faults((*byte)(unsafe.Add(unsafe.Pointer(&b[0]), offset))) {
				t.Errorf("no fault at %d", offset)
			}
		}
		if faults(&b[0]) || faults(&b[chunkSize-1]) {
			t.Error("the memory itself faults")
		}
	})
}

var sink byte

func faults(p *byte) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	sink = *p
	return false
}

// TestSecretMemoryIsNotInProcMem is what memfd_secret adds: even root's debugger gets an error.
func TestSecretMemoryIsNotInProcMem(t *testing.T) {
	a := newArena(mapSecret)
	k, err := a.key(32, Purpose{}, false)
	if err != nil {
		t.Skip(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	control, got := new([32]byte), make([]byte, 32)
	if _, err := mem.ReadAt(got, int64(uintptr(unsafe.Pointer(control)))); err != nil {
		t.Skipf("not even ordinary memory can be read: %v", err)
	}
	runtime.KeepAlive(control)
	if n, err := mem.ReadAt(got, int64(uintptr(unsafe.Pointer(&k.Bytes()[0])))); err == nil || err == io.EOF {
		t.Errorf("read %d bytes of a key, %v", n, err)
	}
}

const limitChild = "SECRET_TEST_LIMIT_CHILD"

// TestLimitIsRaisedThenReported needs a process of its own, since the limit is the process's.
func TestLimitIsRaisedThenReported(t *testing.T) {
	for _, m := range []mapper{mapSecret, mapLocked} {
		t.Run(m.kind, func(t *testing.T) {
			if _, err := newArena(m).key(1, Purpose{}, false); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestLimitChild$")
			cmd.Env = append(os.Environ(), limitChild+"="+m.kind)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestLimitChild(t *testing.T) {
	kind := os.Getenv(limitChild)
	if kind == "" || kind == "1000" {
		t.Skip("runs as a child of TestLimitIsRaisedThenReported")
	}
	const chunks = 3
	lowerLimit(t, chunkSize/2, chunks*chunkSize)
	a := newArena(map[string]mapper{mapSecret.kind: mapSecret, mapLocked.kind: mapLocked}[kind])
	keys, err := 0, error(nil)
	for ; err == nil && keys < 100; keys++ {
		_, err = a.key(chunkSize, Purpose{}, false)
	}
	// The first chunk is to work in.
	want := fmt.Sprintf("%d bytes in keys, %[2]d locked, a limit of %[2]d", (chunks-1)*chunkSize, chunks*chunkSize)
	if keys != chunks || !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), want) {
		t.Errorf("key %d: %v", keys, err)
	}
	if u := a.stats(); u != (Usage{kind, (chunks - 1) * chunkSize, chunks * chunkSize, chunks * chunkSize, chunks - 1}) {
		t.Errorf("%+v", u)
	}
}

// TestAThousandDisksFit is the usual limit of 8 MiB with two layers for each of a thousand disks.
func TestAThousandDisksFit(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestThousandChild$")
	cmd.Env = append(os.Environ(), limitChild+"=1000")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestThousandChild(t *testing.T) {
	if os.Getenv(limitChild) != "1000" {
		t.Skip("runs as a child of TestAThousandDisksFit")
	}
	lowerLimit(t, 8<<20, 8<<20)
	for i := range 2000 {
		if _, err := New(xts.Size, Purpose{}); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
	}
	if u := Stats(); u.Locked > 6<<20 {
		t.Errorf("the schedules of 2000 layers lock %d bytes", u.Locked)
	}
}

// lowerLimit sets both limits and gives up the capability that lifts them. Capabilities are the thread's.
func lowerLimit(t *testing.T, soft, hard uint64) {
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: soft, Max: hard}); err != nil {
		t.Fatal(err)
	}
}
