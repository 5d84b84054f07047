//go:build integration

package integration

import (
	"bytes"
	"debug/elf"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

const (
	softHSM  = "/usr/lib/softhsm/libsofthsm2.so"
	rightPIN = "48291507"
	// soonEnough is how long what waits for a token may take.
	soonEnough = 10 * time.Second
)

// buildHelper compiles the helper beside the program under test, once.
var buildHelper = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-tags", "pkcs11", "-o", filepath.Join(filepath.Dir(program), "nbdcrypt-pkcs11"), "nbdcrypt/cmd/nbdcrypt-pkcs11")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// box is a token of SoftHSM in a directory of its own.
type box struct {
	t                   *testing.T
	tokens, pin, module string
}

// newBox makes a token `box`, which d and its helpers find.
func newBox(t *testing.T, d *daemon) *box {
	t.Helper()
	check(t, buildHelper())
	b := &box{t: t, tokens: d.dir + "/tokens", pin: d.dir + "/pin", module: d.dir + "/module.so"}
	check(t, os.Mkdir(b.tokens, 0o700))
	check(t, os.Symlink(softHSM, b.module))
	b.setPIN(rightPIN)
	conf := d.dir + "/softhsm2.conf"
	writeFile(t, conf, []byte("directories.tokendir = "+b.tokens+"\nobjectstore.backend = file\n"))
	d.env = append(d.env, "SOFTHSM2_CONF="+conf)
	b.util(d, "--init-token", "--free", "--label", "box", "--pin", rightPIN, "--so-pin", "12345678")
	return b
}

func (b *box) util(d *daemon, args ...string) {
	b.t.Helper()
	cmd := exec.Command("softhsm2-util", args...)
	cmd.Env = append(os.Environ(), d.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("softhsm2-util %q: %v\n%s", args, err, out)
	}
}

// setPIN writes the file of the PIN as a new one.
func (b *box) setPIN(pin string) {
	b.t.Helper()
	check(b.t, os.WriteFile(b.pin+".new", []byte(pin+"\n"), 0o600))
	check(b.t, os.Rename(b.pin+".new", b.pin))
}

func (b *box) uri(object string) string {
	return "pkcs11:token=box;object=" + url.PathEscape(object) + "?module-path=" + b.module + "&pin-source=file:" + b.pin
}

// away takes the token out, and back in.
func (b *box) away() (back func()) {
	b.t.Helper()
	check(b.t, os.Rename(b.tokens, b.tokens+".away"))
	check(b.t, os.Mkdir(b.tokens, 0o700))
	return func() {
		b.t.Helper()
		check(b.t, os.RemoveAll(b.tokens))
		check(b.t, os.Rename(b.tokens+".away", b.tokens))
	}
}

// hang puts a library that never answers in the place of the token's.
func (b *box) hang() {
	b.t.Helper()
	source := b.module + ".c"
	writeFile(b.t, source, []byte("#include <unistd.h>\nlong C_GetFunctionList(void *list) { for (;;) pause(); }\n"))
	tool(b.t, "gcc", "-shared", "-fPIC", "-o", b.module+".hangs", source)
	check(b.t, os.Rename(b.module+".hangs", b.module))
}

// held is a daemon whose store a token holds, with an encrypted disk `vol`.
func held(t *testing.T) (*daemon, *box) {
	t.Helper()
	d := newDaemon(t)
	b := newBox(t, d)
	d.root = b.uri("nbdcrypt")
	d.start()
	d.do("grant", "create")
	d.create("vol", "64M", "--encrypted")
	return d, b
}

// soon fails where what a function does takes longer than a token may keep anybody waiting.
func soon(t *testing.T, what string, does func()) {
	t.Helper()
	from := time.Now()
	does()
	if took := time.Since(from); took > soonEnough {
		t.Errorf("%s took %v", what, took)
	}
}

// TestRuleA4_TokenHoldsTheStore: the root key is made on the token and stays there; each CMK opens through it alone, over restarts, and
// slots by other means are refused.
func TestRuleA4_TokenHoldsTheStore(t *testing.T) {
	t.Parallel()
	d, _ := held(t)
	if said := d.said(); !strings.Contains(said, "held by the key pkcs11:token=box;object=nbdcrypt") || !strings.Contains(said, "back the token up") {
		t.Errorf("the first start said %s", said)
	}
	write(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)
	d.checkClean()
	if slots := get[[]control.Slot](d, "root", "slot", "list"); len(slots) != 1 || slots[0].ID != "token" || !slots[0].Present || !slots[0].Automatic ||
		!strings.Contains(slots[0].Detail, "AES-256 key on token box") {
		t.Errorf("the slots: %+v", slots)
	}
	passphrase := d.dir + "/passphrase"
	check(t, os.WriteFile(passphrase, []byte(rightPassphrase), 0o600))
	if e := d.refused(6, "root", "slot", "add", "passphrase", "--passphrase-file", passphrase); !strings.Contains(e.Hint, "back up the token") {
		t.Errorf("%+v", e)
	}
	d.refused(6, "root", "slot", "remove", "token", "--yes")
	d.stop()
	d.start()
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)
	d.do("detach", "vol")

	if out := d.do("root", "lock"); !strings.Contains(out, "opens it again through its token") {
		t.Errorf("lock: %s", out)
	}
	d.refused(10, "attach", "vol")
	if out := d.do("root", "unlock"); !strings.Contains(out, "by slot token") {
		t.Errorf("unlock: %s", out)
	}
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20+777)
	d.stop()
	for _, path := range files(t, d.state, d.pool) {
		text, err := os.ReadFile(path)
		check(t, err)
		if bytes.Contains(text, []byte(rightPIN)) {
			t.Errorf("the PIN lies in %s", path)
		}
	}
}

// TestTokenIsTakenAway: a disk that is attached goes on under a verified load; an attach says what is missing, soon; a start waits for
// the token instead of failing.
func TestTokenIsTakenAway(t *testing.T) {
	t.Parallel()
	d, b := held(t)
	d.create("other", "16M", "--encrypted")
	l := newLoad(512)
	wait := l.start(t, d.attach("vol"))
	l.waitForFlushes(t, 20)
	back := b.away()
	soon(t, "the refusal", func() {
		if e := d.refused(10, "attach", "other"); !strings.Contains(e.Message, "no such token") || !strings.Contains(e.Hint, "token") {
			t.Errorf("%+v", e)
		}
	})
	d.refused(10, "key", "create", "k")
	d.refused(10, "check")
	if slots := get[[]control.Slot](d, "root", "slot", "list"); slots[0].Present || !strings.Contains(slots[0].Detail, "no such token") {
		t.Errorf("the slots: %+v", slots)
	}
	l.waitForFlushes(t, 20)
	back()
	d.attach("other")
	l.waitForFlushes(t, 20)
	d.do("detach", "vol")
	wait()
	l.drained()
	d.checkClean()
	d.stop()

	back = b.away()
	d.start()
	if s := d.status(); !s.Locked || !s.Closed {
		t.Errorf("the status: %+v", s)
	}
	if e := d.refused(10, "root", "unlock"); !strings.Contains(e.Message, "no such token") {
		t.Errorf("%+v", e)
	}
	back()
	d.do("root", "unlock")
	l.verify(t, d.attach("vol"))
}

// TestWrongPIN: it is named, tried once, and mended by a new file.
func TestWrongPIN(t *testing.T) {
	t.Parallel()
	d, b := held(t)
	d.stop()
	b.setPIN("11111111")
	d.start()
	for range 12 { // more than tokens take
		if e := d.refused(10, "root", "unlock"); !strings.Contains(e.Message, "wrong") || !strings.Contains(e.Message, b.pin) || strings.Contains(e.Message, "1111") {
			t.Fatalf("%+v", e)
		}
	}
	b.setPIN(rightPIN)
	check(t, os.Chmod(b.pin, 0o640))
	if e := d.refused(10, "root", "unlock"); !strings.Contains(e.Message, "0640") || !strings.Contains(e.Message, "chmod 600") {
		t.Errorf("%+v", e)
	}
	check(t, os.Chmod(b.pin, 0o600))
	d.do("root", "unlock")
	d.attach("vol")
}

// TestTokenThatHangs: whoever waits for it is told soon, and nobody else waits; the process that hangs is hidden, and ends.
func TestTokenThatHangs(t *testing.T) {
	t.Parallel()
	d, b := held(t)
	d.create("plain", "16M", "--plain")
	b.hang()
	refused := make(chan control.Error)
	from := time.Now()
	go func() {
		r := execute(t, d.command("attach", "vol", "--json"))
		refused <- control.Error{Code: r.code, Message: r.stderr}
	}()
	var helper string
	waitFor(t, "a helper", func() bool {
		helper = helperOf(d.pid())
		return helper != ""
	})
	waitFor(t, "that it leaves no core", func() bool {
		limits, err := os.ReadFile(helper + "/limits")
		check(t, err)
		return strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0")
	})
	d.attach("plain")
	d.do("disk", "list")
	if e := <-refused; e.Code != 10 || !strings.Contains(e.Message, "did not answer within 3.5s") || time.Since(from) > soonEnough {
		t.Errorf("after %v: %+v", time.Since(from), e)
	}
	waitFor(t, "the end of the helper", func() bool { return helperOf(d.pid()) == "" })
	d.stop()
	soon(t, "the start", d.start)
	if s := d.status(); !s.Locked || len(s.Warnings) == 0 {
		t.Errorf("the status: %+v", s)
	}
}

// helperOf finds the helper of a daemon in /proc.
func helperOf(pid int) string {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			name, _ := os.ReadFile("/proc/" + child + "/comm")
			if string(name) == "nbdcrypt-pkcs11\n" {
				return "/proc/" + child
			}
		}
	}
	return ""
}

// TestHelperOfOthersIsNotRun: nobody who may not act as the daemon gets to put a program, or a library, in its way.
func TestHelperOfOthersIsNotRun(t *testing.T) {
	t.Parallel()
	check(t, buildHelper())
	d := newDaemon(t)
	b := newBox(t, d)
	d.root = b.uri("nbdcrypt")
	bin := d.dir + "/bin"
	check(t, os.Mkdir(bin, 0o755))
	tool(t, "cp", program, filepath.Join(filepath.Dir(program), "nbdcrypt-pkcs11"), bin)
	d.program = bin + "/nbdcrypt"
	helper := bin + "/nbdcrypt-pkcs11"
	check(t, os.Chmod(helper, 0o777))
	if said := d.refusesToStart(10); !strings.Contains(said, helper) || !strings.Contains(said, "0777") {
		t.Errorf("a helper that all may write: %s", said)
	}
	check(t, os.Chmod(helper, 0o755))
	check(t, os.Remove(b.module))
	tool(t, "cp", softHSM, b.module)
	check(t, os.Chown(b.module, 65534, 0))
	if said := d.refusesToStart(10); !strings.Contains(said, b.module) || !strings.Contains(said, strconv.Itoa(65534)) {
		t.Errorf("a library of somebody: %s", said)
	}
	check(t, os.Remove(helper))
	d.env = append(d.env, "PATH="+d.dir)
	if said := d.refusesToStart(10); !strings.Contains(said, "make pkcs11") {
		t.Errorf("without a helper: %s", said)
	}
}

// TestProgramIsStatic: what is shipped needs no library, and loads none; only the helper does.
func TestProgramIsStatic(t *testing.T) {
	t.Parallel()
	check(t, buildHelper())
	for path, static := range map[string]bool{program: true, filepath.Join(filepath.Dir(program), "nbdcrypt-pkcs11"): false} {
		f, err := elf.Open(path)
		check(t, err)
		defer f.Close()
		libraries, err := f.ImportedLibraries()
		check(t, err)
		if (len(libraries) == 0) != static {
			t.Errorf("%s needs the libraries %q", path, libraries)
		}
	}
}

// TestRuleA4_NoKeyOfAHeldStoreInAnyFile looks for everything that was in key memory, in the files of daemon and token, and in the daemon's memory.
func TestRuleA4_NoKeyOfAHeldStoreInAnyFile(t *testing.T) {
	t.Parallel()
	h := &hunt{daemon: keytestDaemon(t)}
	b := newBox(t, h.daemon)
	h.root = b.uri("nbdcrypt")
	h.begin()
	h.do("key", "create", "mine")
	h.create("one", "8M", "--encrypted")
	h.create("two", "8M", "--key=mine")
	for _, name := range []string{"one", "two"} {
		write(t, dial(t, h.attach(name)), noise(name, 1<<20), 12345)
	}
	h.do("root", "lock")
	h.do("root", "unlock")
	h.memory("attached")
	h.do("detach", "one")
	h.stop()
	keys := h.keys()
	scanner := h.scanner(keys, "root", "catalog", "cmk", "dek", "derived")
	for _, s := range h.shots {
		h.judge(s, s.leaks(scanner))
	}
	h.searchFiles("stopped", scanner)
	for _, path := range files(t, b.tokens) {
		for _, hit := range scanner.Scan(readFile(t, path)) {
			t.Errorf("%s: %v", path, hit)
		}
	}
	if len(scanner.Scan(readFile(t, h.handedOut()))) == 0 {
		t.Error("control: no key is found where all are")
	}
}
