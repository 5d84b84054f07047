package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// logged is a log that tests read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hookScript writes a shell script as a hook; OUT in it is a folder of its own.
func hookScript(t *testing.T, script string) (program, out string) {
	t.Helper()
	out = t.TempDir()
	if err := os.Chmod(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(out, "hook")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+strings.ReplaceAll(script, "OUT", out)+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, out
}

// startHooked is start with a hook.
func startHooked(t *testing.T, script string) (d *Daemon, out string, log *logged) {
	t.Helper()
	o := options(t)
	log = &logged{}
	o.Hook, out = hookScript(t, script)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	return startWith(t, o), out, log
}

// eventually waits for what a program does in its own time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never comes: " + what)
		}
	}
}

// A refused unwrap is told: whose, of what, under which key; the program has three descriptors, and an environment of its own.
func TestHookHearsOfRefusedUnwraps(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "x")
	fd, err := unix.Open("/dev/zero", unix.O_RDONLY, 0) // what starts the daemon may leave it descriptors
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d, out, log := startHooked(t, `cat >OUT/event.$$; env >OUT/env.$$; sh -c "ls -l /proc/self/fd" >OUT/fds.$$; pwd >OUT/pwd.$$; echo heard >&2; mv OUT/event.$$ OUT/$NBDCRYPT_RESOURCE.$NBDCRYPT_EVENT`)
	for _, c := range []struct{ route, body string }{
		{control.RouteKeyCreate, `{"alias":"mine"}`}, {control.RouteDiskCreate, `{"name":"vault","size":1048576,"key":"mine"}`},
		{"POST /v1/keys/mine/disable", ""},
	} {
		if status, body := d.call(t, c.route, nbd.Peer{}, c.body); status != http.StatusOK {
			t.Fatalf("%s: %d %s", c.route, status, body)
		}
	}
	key, err := d.keys.Key(t.Context(), "default", "mine")
	if err != nil {
		t.Fatal(err)
	}
	read := func(resource string) (e event) {
		t.Helper()
		path := filepath.Join(out, resource+".unwrap-refused")
		eventually(t, path, func() bool { _, err := os.Stat(path); return err == nil })
		text, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(text, &e) != nil || bytes.Count(text, []byte("\n")) != 1 {
			t.Fatalf("%v: %q", err, text)
		}
		if e.Event != eventUnwrapRefused || e.Project != "default" || e.Region != "local" || e.Key != "mine" || e.KeyID != key.ID || e.Resource != resource ||
			e.Message == "" || e.Time.IsZero() {
			t.Errorf("%s: %+v", resource, e)
		}
		return e
	}
	d.call(t, "POST /v1/disks/vault/attach", nbd.Peer{}, "{}")
	if e := read("vault"); !strings.Contains(e.Message, "Disabled") {
		t.Errorf("%+v", e)
	}
	if err := os.Remove(filepath.Join(out, "vault.unwrap-refused")); err != nil {
		t.Fatal(err)
	}
	d.call(t, "POST /v1/disks/vault/escrow?yes=true", nbd.Peer{UID: 65534}, "")
	if e := read("vault"); e.User != d.callerOf(65534).User || !strings.Contains(e.Message, "may not") {
		t.Errorf("%+v", e)
	}
	d.call(t, control.RouteDiskCreate, nbd.Peer{UID: 65534}, `{"name":"other","size":1048576,"key":"none"}`)
	eventually(t, "the event of a key that is not there", func() bool { _, err := os.Stat(filepath.Join(out, "other.unwrap-refused")); return err == nil })
	if text := contentOf(t, out, "other.unwrap-refused")[0]; !strings.Contains(text, `"key":"","key_id":""`) {
		t.Errorf("it names a key that the call did not: %s", text)
	}
	d.call(t, "POST /v1/disks/nul%00/attach", nbd.Peer{UID: 65534}, "{}")
	eventually(t, "the event of a name with a zero byte", func() bool { _, err := os.Stat(filepath.Join(out, "nul\uFFFD.unwrap-refused")); return err == nil })
	d.call(t, control.RouteDiskCreate, nbd.Peer{}, `{"name":"more","size":1048576,"key":"mine"}`)
	eventually(t, "five events", func() bool { return strings.Count(log.String(), "the hook was told") == 5 })
	if !strings.Contains(log.String(), "heard") {
		t.Errorf("what it said is not in the log: %s", log)
	}
	if n := d.refusedUnwraps.Load(); n != 5 {
		t.Errorf("%d refused unwraps are counted", n)
	}
	for _, fds := range contentOf(t, out, "fds.*") { // one more is that of ls, which reads the folder
		if lines := strings.Count(fds, " -> "); lines != 4 {
			t.Errorf("the hook has descriptors:\n%s", fds)
		}
	}
	for _, env := range contentOf(t, out, "env.*") {
		for _, line := range strings.Split(strings.TrimSpace(env), "\n") {
			name, _, _ := strings.Cut(line, "=")
			if !slices.Contains([]string{"PATH", "PWD", "OLDPWD", "SHLVL", "_"}, name) && !strings.HasPrefix(name, "NBDCRYPT_") {
				t.Errorf("the hook has the variable %s", line)
			}
		}
	}
	for _, pwd := range contentOf(t, out, "pwd.*") {
		if pwd != "/\n" {
			t.Errorf("the hook starts in %s", pwd)
		}
	}
	refusals := 0
	for _, rec := range d.records(t) {
		if rec.Outcome == "refused" {
			refusals++
			if named := rec.Resource == "vault" || rec.Resource == "more"; named != (rec.KeyID == key.ID) || !named && rec.KeyID != "" {
				t.Errorf("the record of %s names key %q", rec.Verb, rec.KeyID)
			}
		}
	}
	if refusals != 5 {
		t.Errorf("%d refusals are recorded", refusals)
	}
}

func contentOf(t *testing.T, dir, pattern string) (texts []string) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(dir, pattern))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if len(texts) == 0 {
		t.Fatalf("no %s", pattern)
	}
	return texts
}

// A hook that hangs is killed, with what it started; one that fails is told of; the next event is not lost.
func TestHookThatHangsIsKilled(t *testing.T) {
	d, out, log := startHooked(t, `case $NBDCRYPT_EVENT in hang) sleep 1000 & echo $! >OUT/pid; sleep 1000;; fail) echo why >&2; exit 3;; *) touch OUT/after;; esac`)
	d.hook.limit = time.Second
	for _, e := range []string{"hang", "fail", "good"} {
		d.notify(event{Event: e})
	}
	eventually(t, "the event after", func() bool { _, err := os.Stat(out + "/after"); return err == nil })
	pid := strings.TrimSpace(contentOf(t, out, "pid")[0])
	eventually(t, "the end of what it started", func() bool {
		status, err := os.ReadFile("/proc/" + pid + "/status")
		return err != nil || bytes.Contains(status, []byte("State:\tZ"))
	})
	for _, want := range []string{"it took more than", "exit status 3", "said=\"why"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log)
		}
	}
}

// Events that come faster than the hook are dropped, and the log says which; what anybody can bring about leaves room for the rest.
func TestHookQueueIsBounded(t *testing.T) {
	d, _, log := startHooked(t, `sleep 1000`)
	for i := range 2 * hookQueue {
		d.notify(event{Event: eventUnwrapRefused, Key: fmt.Sprint("denied", i), denied: true})
	}
	for i := range 2 * hookQueue {
		d.notify(event{Event: eventUnwrapRefused, Key: fmt.Sprint("forbidden", i)})
	}
	for i := range 2 * hookQueue {
		d.notify(event{Event: eventKeyDeleted, Key: fmt.Sprint("deleted", i)})
	}
	text := log.String()
	dropped := func(what string) int {
		return strings.Count(text, "does not keep up: it is not told of an event\" event="+what)
	}
	refused, deleted := dropped(eventUnwrapRefused), dropped(eventKeyDeleted)
	if low := 4*hookQueue - hookQueue*3/4; refused < low-2 || refused > low || deleted < 2*hookQueue-hookQueue/4-2 || deleted > 2*hookQueue-hookQueue/4 {
		t.Errorf("%d refusals and %d deletions are dropped", refused, deleted)
	}
	for _, first := range []string{"key-deleted project=\"\" key=deleted0 ", "unwrap-refused project=\"\" key=forbidden0 "} {
		if strings.Contains(text, "is not told of an event\" event="+first) {
			t.Errorf("there was no room for %s", first)
		}
	}
	begun := time.Now()
	d.close()
	if took := time.Since(begun); took > hookLast+10*time.Second {
		t.Errorf("stopping waited %v for the hook", took)
	}
	if !strings.Contains(log.String(), "the daemon stops, and the hook was not told") {
		t.Error("what was left in the queue is not told")
	}
}

// A hook that others could write, or put another in place of, is refused.
func TestHookOfOthersIsRefused(t *testing.T) {
	program, out := hookScript(t, "true")
	self := uint32(os.Geteuid())
	if err := checkHook(program, self); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	open := filepath.Join(out, "open")
	link := filepath.Join(out, "link")
	for _, err := range []error{os.Mkdir(open, 0o755), os.WriteFile(open+"/hook", []byte("#!/bin/sh\n"), 0o755), os.Chmod(open, 0o777),
		os.Symlink(open+"/hook", link), os.WriteFile(out+"/plain", nil, 0o644), os.WriteFile(out+"/group", nil, 0o755), os.Chmod(out+"/group", 0o775)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range map[string]string{"relative": "hook", "missing": out + "/none", "no program": out + "/plain", "a folder": out,
		"others write it": out + "/group", "in a folder of all": open + "/hook", "through a link": link} {
		if checkHook(path, self) == nil {
			t.Errorf("%s: %s is taken", name, path)
		}
	}
	if self != 0 && checkHook("/bin/sh", self) != nil {
		t.Error("root's program is refused")
	}
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := checkHook(open+"/hook", self); err != nil {
		t.Errorf("in a folder with the sticky bit: %v", err)
	}
	o := options(t)
	o.Hook = out + "/group"
	if err := Run(t.Context(), o); refusal.CodeOf(err) != refusal.Usage || refusal.From(err).Hint == "" {
		t.Errorf("the daemon starts: %v", err)
	}
}
