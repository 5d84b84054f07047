package child

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

func TestMain(m *testing.M) {
	if !Main() {
		os.Exit(m.Run())
	}
}

func passphrase(t *testing.T, s string) *secret.Key {
	t.Helper()
	k, err := secret.Work(len(s), secret.Purpose{Kind: "test"})
	if err != nil {
		t.Fatal(err)
	}
	copy(k.Bytes(), s)
	t.Cleanup(k.Destroy)
	return k
}

// The reference implementation's known answer for argon2id, version 19. The vector of RFC 9106, 5.3 has a secret and
// associated data, which nothing here uses.
func TestKnownAnswer(t *testing.T) {
	key, err := Argon2(t.Context(), passphrase(t, "password"), Params{2, 64 << 10, 1}, []byte("somesalt"))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if got := hex.EncodeToString(key.Bytes()); got != "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7" {
		t.Error(got)
	}
}

// Every byte of a passphrase counts, none of them means anything, and lengths up to the limit pass through.
func TestPassphrasesAreBytes(t *testing.T) {
	salt, p := []byte("0123456789abcdef"), Params{1, 64, 4}
	for _, s := range []string{"x", "line\nfeed\n", "\x00\xff\xfe", strings.Repeat("p", MaxPass)} {
		key, err := Argon2(t.Context(), passphrase(t, s), p, salt)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(key.Bytes(), argon2.IDKey([]byte(s), salt, 1, 64, 4, KeySize)) {
			t.Errorf("%.10q gives another key in the child", s)
		}
		key.Destroy()
	}
}

func TestOutsideTheLimits(t *testing.T) {
	good := Params{1, 64, 4}
	for what, r := range map[string]argon2Request{
		"no passphrase":     {good, make([]byte, 16), nil},
		"long passphrase":   {good, make([]byte, 16), make([]byte, MaxPass+1)},
		"short salt":        {good, make([]byte, 7), make([]byte, 1)},
		"long salt":         {good, make([]byte, maxSalt+1), make([]byte, 1)},
		"no passes":         {Params{0, 64, 4}, make([]byte, 16), make([]byte, 1)},
		"many passes":       {Params{MaxTime + 1, 64, 4}, make([]byte, 16), make([]byte, 1)},
		"no lanes":          {Params{1, 64, 0}, make([]byte, 16), make([]byte, 1)},
		"many lanes":        {Params{1, 1024, MaxLanes + 1}, make([]byte, 16), make([]byte, 1)},
		"too little a lane": {Params{1, 31, 4}, make([]byte, 16), make([]byte, 1)},
		"all memory":        {Params{1, MaxMemory + 1, 4}, make([]byte, 16), make([]byte, 1)},
	} {
		if _, err := r.head(); !errors.Is(err, errRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What only the process itself can tell, in one of its own.
func TestHiddenProcess(t *testing.T) {
	const inside = "CHILD_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestHiddenProcess$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("was hidden")) {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || before != 1 {
		t.Fatalf("before, PR_GET_DUMPABLE gives %d, %v", before, err)
	}
	if err := hide(); err != nil {
		t.Fatal(err)
	}
	if after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || after != 0 {
		t.Errorf("PR_GET_DUMPABLE gives %d, %v", after, err)
	}
	t.Log("was hidden")
}

// long is an argon2 that runs for seconds.
var long = Params{MaxTime, 256 << 10, 4}

// begin starts one and returns its child's directory in /proc once it has its memory.
func begin(t *testing.T, ctx context.Context) (proc string, ended chan error) {
	t.Helper()
	pass := passphrase(t, "correct horse")
	ended = make(chan error, 1)
	go func() {
		key, err := Argon2(ctx, pass, long, make([]byte, 16))
		if err == nil {
			key.Destroy()
		}
		ended <- err
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if proc = running(); proc != "" {
			return proc, ended
		}
	}
	t.Fatal("no child is seen")
	return "", nil
}

// running finds a child that has begun to compute.
func running() string {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		pids, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(pids)) {
			proc := "/proc/" + pid
			name, _ := os.ReadFile(proc + "/cmdline")
			var pages, resident int
			statm, _ := os.ReadFile(proc + "/statm")
			fmt.Sscan(string(statm), &pages, &resident)
			if string(name) == marker+"\x00argon2\x00" && resident > 64<<20/os.Getpagesize() {
				return proc
			}
		}
	}
	return ""
}

func TestChildIsClosedToOthers(t *testing.T) {
	mine, err := os.Create(filepath.Join(t.TempDir(), "mine"))
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	ctx, cancel := context.WithCancel(t.Context())
	proc, ended := begin(t, ctx)
	status := read(t, proc+"/status")
	st, err := os.Stat(proc + "/fd")
	if err != nil || os.Geteuid() != 0 && st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("it is dumpable: %v", err)
	}
	if os.Geteuid() == 0 {
		if open := openFiles(t, proc); len(open) < 3 || slices.Contains(open, mine.Name()) {
			t.Errorf("it has open %v", open)
		}
		if env := read(t, proc+"/environ"); env != "" {
			t.Errorf("its environment is %q", env)
		}
		if !strings.Contains(status, "VmLck:\t") || strings.Contains(status, "VmLck:\t       0 kB") {
			t.Errorf("it is not locked in memory: %s", status)
		}
	}
	if limits := read(t, proc+"/limits"); !strings.Contains(strings.Join(strings.Fields(limits), " "), "Max core file size 0 0") {
		t.Errorf("its limits are %s", limits)
	}
	if score := read(t, proc+"/oom_score_adj"); score != "1000\n" {
		t.Errorf("its score is %q", score)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped, it says %v", err)
	}
	if _, err := os.Stat(proc); err == nil {
		t.Error("it is there still")
	}
}

func openFiles(t *testing.T, proc string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, _ := os.Readlink(proc + "/fd/" + f.Name())
		names = append(names, name)
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A child that is killed, as where memory runs out, is a refusal that says what it needs; the next one works.
func TestKilledChild(t *testing.T) {
	proc, ended := begin(t, t.Context())
	var pid int
	fmt.Sscan(filepath.Base(proc), &pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r := refusal.From(<-ended)
	if r == nil || r.Code != refusal.Failed || !strings.Contains(r.Message, "killed") || !strings.Contains(r.Hint, "256 MiB") {
		t.Errorf("killed, it says %+v", r)
	}
	key, err := Argon2(t.Context(), passphrase(t, "p"), Params{1, 64, 4}, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
}

// One child runs at a time; who waits for it can give up.
func TestChildrenTakeTurns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, ended := begin(t, ctx)
	soon, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if _, err := Argon2(soon, passphrase(t, "p"), Params{1, 64, 4}, make([]byte, 16)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	<-ended
	if n := secret.Unwiped(); n != 0 {
		t.Errorf("%d bytes are not wiped", n)
	}
}

// What a child says of its failure reaches whoever asked.
func TestFailureIsTold(t *testing.T) {
	in, asked, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	asked.WriteString("nonsense")
	asked.Close()
	b := make([]byte, argon2Operation.request)
	n, err := readAll(int(in.Fd()), b)
	if err != nil {
		t.Fatal(err)
	}
	_, bad := parseArgon2(b[:n])
	if err := writeAll(int(out.Fd()), append([]byte{7}, bad.Error()...)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if _, err := readAnswer(answers, KeySize, secret.Purpose{}); classOf(err) != 7 || !strings.Contains(err.Error(), "no request") {
		t.Error(err)
	}
	for _, short := range []string{"", "\x00", "\x00\x00\x00\x00\x06short", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x21" + strings.Repeat("x", 33)} {
		if _, err := readAnswer(strings.NewReader(short), KeySize, secret.Purpose{}); err == nil {
			t.Errorf("%q is an answer", short)
		}
	}
	if n := secret.Unwiped(); n != 0 {
		t.Errorf("%d bytes are not wiped", n)
	}
}

// A child that hangs in the kernel holds nobody up: what was asked for ends without it, and its answer, where one comes, is
// wiped.
func TestHungChildIsLeft(t *testing.T) {
	hung := &operation{word: "none of the operations", request: 1, answer: 1, timeout: time.Minute}
	if _, err := run(t.Context(), hung, secret.Purpose{}, []byte{0}); classOf(err) != classFailed || !strings.Contains(err.Error(), "no operation") {
		t.Errorf("an unknown operation: %v", err)
	}
	if _, err := run(t.Context(), hung, secret.Purpose{}, make([]byte, 2)); !errors.Is(err, errRequest) {
		t.Errorf("a long request: %v", err)
	}
	slow := *argon2Operation
	slow.timeout = 50 * time.Millisecond
	head, err := argon2Request{long, make([]byte, 16), []byte("x")}.head()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = run(t.Context(), &slow, secret.Purpose{}, head, []byte("x"))
	if !errors.As(err, &errSlow{}) || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// A device that is no TPM is told before it is opened.
func TestDeviceThatIsNoTPM(t *testing.T) {
	if _, err := openTPM("/dev/null"); classOf(err) != classGone || !strings.Contains(err.Error(), "not that of a TPM") {
		t.Errorf("/dev/null: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	r := argon2Request{Params{3, 256 << 10, 4}, make([]byte, 16), []byte("correct horse")}
	head, err := r.head()
	if err != nil {
		f.Fatal("no seed", err)
	}
	f.Add(append(head, r.pass...))
	f.Add(head)
	f.Add([]byte(argon2Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseArgon2(b)
		if err != nil {
			return
		}
		head, err := r.head()
		if err != nil || !bytes.Equal(append(head, r.pass...), b) {
			t.Errorf("%x is taken as %+v, %v", b, r, err)
		}
	})
}
