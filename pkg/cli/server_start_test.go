package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

// programIs writes a script that stands in for this program when it is started in the background.
func (m *fakeMachine) programIs(t *testing.T, script string) {
	t.Helper()
	m.program = filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(m.program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// lastWord is a script that answers with what script says of the server that the command line ends with, $name.
const lastWord = `for name; do :; done; `

// TestServerStart: a runner is started for the server in the background, by the same program; what it tells is what is printed.
func TestServerStart(t *testing.T) {
	f := withServers(t, "s")
	server := `{"server":{"name":"s","status":"running","console":"/c"},"said":["no /dev/kvm: this is slow"]}`
	for _, c := range []struct {
		script string
		code   refusal.Code
		out    string
		err    string
	}{
		{`[ "$*" = "server start --project default --reconnect 1m0s -- s" ] && [ "$NBDCRYPT_KEEPER" = 3 ] && echo '` + server + `' >&3; exec 3>&-; exit`, refusal.OK, "console     /c\n", "warning: no /dev/kvm: this is slow\n"},
		{`echo '{"error":{"code":4,"message":"key k is Disabled","hint":"enable it"},"said":["tried twice"]}' >&3`, refusal.KeyForbids, "", "warning: tried twice\nnbdcrypt: key k is Disabled\n  → enable it\n"},
		{`exit 3`, refusal.Failed, "", "nbdcrypt: the runner of server s ended before all was done"},
	} {
		m := newMachine(1000)
		m.programIs(t, c.script)
		got := m.on(t, f, "", "server", "start", "s", "--reconnect", "60s")
		if got.code != int(c.code) || !strings.Contains(got.out, c.out) || !strings.Contains(got.err, c.err) || len(f.asked) != 0 {
			t.Errorf("%s: %+v", c.script, got)
		}
	}
	m := newMachine(1000)
	m.programIs(t, `[ "$3 $4 $7 $8" = "--project shop --run `+f.run+`" ] && echo '`+server+`' >&3`)
	if got := m.on(t, f, "", "--project", "shop", "server", "start", "s", "--run", f.run); got.code != 0 {
		t.Errorf("of another project and daemon: %+v", got)
	}
}

// TestServerStartKeepsNothingOpen: a pipe or a lock that a script left open for the command is not the runner's, which stays.
func TestServerStartKeepsNothingOpen(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	f, m := withServers(t, "s"), newMachine(1000)
	m.programIs(t, fmt.Sprintf(`[ -e /proc/$$/fd/%d ] || echo '{"server":{"name":"s","status":"running"}}' >&3`, pipe[1]))
	if got := m.on(t, f, "", "server", "start", "s"); got.code != 0 {
		t.Errorf("it holds the pipe: %+v", got)
	}
}

// TestServerStartInterrupted: an interrupt ends the runner that is about to start, and is told once that has ended.
func TestServerStartInterrupted(t *testing.T) {
	f, m, began := withServers(t, "s"), newMachine(1000), filepath.Join(t.TempDir(), "began")
	m.programIs(t, `trap 'exit 1' TERM; touch '`+began+`'; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(began); err == nil {
				cancel()
			}
		}
	}()
	var out, errs shared
	a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(any) bool { return false }, machine: m.machine, program: m.program}
	if code := a.main(ctx, []string{"server", "start", "s"}, strings.NewReader(""), &out, &errs); code != int(refusal.Failed) || out.String() != "" || !strings.Contains(errs.String(), "interrupted: the runner of server s was ended before all was done\n  → repeat") {
		t.Errorf("%d, %s", code, errs.String())
	}
	cancel()
}

// TestServersStart: several are started side by side, past one that can't be, whose code is the command's.
func TestServersStart(t *testing.T) {
	f := withServers(t)
	m := newMachine(1000)
	m.programIs(t, lastWord+`case $name in
		b*) echo '{"error":{"code":4,"message":"disk '$name'-system: key k is Disabled","hint":"enable it"}}' >&3;;
		*) echo '{"server":{"name":"'$name'","status":"running"}}' >&3;;
		esac`)
	if got := m.on(t, f, "", "server", "start", "a", "c", "d"); got.code != 0 || got.out != "a is running\nc is running\nd is running\n" {
		t.Errorf("all: %+v", got)
	}
	got := m.on(t, f, "", "server", "start", "a", "b1", "c", "d", "e", "f", "g", "b2")
	if got.code != int(refusal.KeyForbids) || got.out != "a is running\nc is running\nd is running\ne is running\nf is running\ng is running\n" ||
		!strings.Contains(got.err, "2 of 8 servers not started: b1: disk b1-system: key k is Disabled; b2: disk b2-system: key k is Disabled\n  → enable it\n") {
		t.Errorf("some: %+v", got)
	}
	got = m.on(t, f, "", "server", "start", "a", "b", "--json")
	var list []control.Server
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list) != 1 || list[0].Name != "a" || got.code != int(refusal.KeyForbids) || !strings.HasPrefix(got.err, `{"error":{"code":4,`) {
		t.Errorf("JSON: %+v, %v", got, err)
	}
	got = m.on(t, f, "", "server", "start", "a", "--json")
	var one control.Server
	if err := json.Unmarshal([]byte(got.out), &one); err != nil || one.Status != control.ServerRunning {
		t.Errorf("JSON of one: %+v, %v", got, err)
	}
}

// TestServersStartAtOnce: a few are started at a time: each waits here until three others are there, too.
func TestServersStartAtOnce(t *testing.T) {
	f, m, dir := withServers(t), newMachine(1000), t.TempDir()
	m.programIs(t, lastWord+`touch '`+dir+`'/$name; until [ $(ls '`+dir+`' | wc -l) -ge 4 ]; do sleep 0.01; done; echo '{"server":{"name":"'$name'","status":"running"}}' >&3`)
	if got := m.on(t, f, "", "server", "start", "a", "b", "c", "d"); got.code != 0 || strings.Count(got.out, "is running") != 4 {
		t.Errorf("%+v", got)
	}
}

// TestServerStartWithoutQEMU: what is missing is said before anything is attached or made.
func TestServerStartWithoutQEMU(t *testing.T) {
	f, m := withServers(t, "s"), newMachine(1000)
	m.fails["qemu"] = refusal.New(refusal.Failed, "apt install qemu-system-x86", "there is no qemu-system-x86_64")
	m.programIs(t, "exit 9")
	for _, line := range []string{"server start s", "server start s --foreground", "scaling group create g --config c --min 1 --max 2 --start", "scaling group scale g 3 --start"} {
		if got := m.on(t, f, "", strings.Fields(line)...); got.code != int(refusal.Failed) || !strings.Contains(got.err, "apt install qemu-system-x86") || len(f.asked)+len(m.steps) != 0 {
			t.Errorf("%s: %+v, asked %q", line, got, f.asked)
		}
	}
}

// TestServerInFront: the runner is this process: it prints the server once it runs, says what it has to say, and ends with the server.
func TestServerInFront(t *testing.T) {
	f := withServers(t, "s")
	m := newMachine(1000)
	m.runs = func(_ context.Context, o vm.Options) error {
		o.Say("no %s", "kvm")
		o.Started(f.running("s"))
		o.Say("the daemon has gone")
		return refusal.New(refusal.Damaged, "check it", "disk s-system is not as it was left")
	}
	got := m.on(t, f, "", "server", "start", "s", "--foreground", "--reconnect", "10m")
	if got.code != int(refusal.Damaged) || !strings.Contains(got.out, "status      running\n") || !strings.HasPrefix(got.err, "warning: no kvm\n") || !strings.Contains(got.err, "the daemon has gone\n") || !strings.Contains(got.err, "not as it was left") {
		t.Errorf("%+v", got)
	}
	if o := m.options; o.Server != "s" || o.RunDir != f.run || o.Reconnect != 10*time.Minute || o.RuntimeDir != "" {
		t.Errorf("run %+v", o)
	}
	m.runs = func(context.Context, vm.Options) error { return nil } // a signal came first
	if got := m.on(t, f, "", "server", "start", "s", "--foreground"); got.code != int(refusal.Failed) || got.out != "" || !strings.Contains(got.err, "server s was not started") {
		t.Errorf("interrupted: %+v", got)
	}
	m.runs = func(_ context.Context, o vm.Options) error { o.Started(control.Server{Name: o.Server}); return nil }
	if got := m.on(t, f, "", "server", "start", "s", "--foreground", "--json"); got.code != 0 || !strings.Contains(got.out, `"by": "`+nameOf(1000)+`"`) || got.err != "" {
		t.Errorf("JSON: %+v", got)
	}
}

// inBackground is set for the process that TestServerInBackground starts, and says what its runner does.
const inBackground = "NBDCRYPT_TEST_RUNNER"

// TestServerInBackground: a process stays behind that has let go of all that was its parent's. It is this test once more.
func TestServerInBackground(t *testing.T) {
	if how := os.Getenv(inBackground); how != "" {
		beRunner(how)
	}
	f := withServers(t, "s")
	left := filepath.Join(t.TempDir(), "left")
	m := newMachine(1000)
	m.programIs(t, `exec '`+os.Args[0]+`' -test.run '^TestServerInBackground$' -- "$@"`)
	t.Setenv("NBDCRYPT_RUN", f.run)
	t.Setenv(inBackground, "stay "+left)
	got := m.on(t, f, "", "server", "start", "s")
	if got.code != 0 || !strings.Contains(got.out, "name        s\n") || got.err != "warning: no kvm\n" {
		t.Fatalf("%+v", got)
	}
	want := "/ /dev/null /dev/null /dev/null false"
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(left); err == nil && string(text) == want {
			break
		}
		if time.Now().After(end) {
			text, err := os.ReadFile(left)
			t.Fatalf("%q, %v, want %q", text, err, want)
		}
	}
	t.Setenv(inBackground, "refuse")
	if got := m.on(t, f, "", "server", "start", "s"); got.code != int(refusal.KeyForbids) || got.out != "" || !strings.Contains(got.err, "nbdcrypt: key k is Disabled\n  → enable it\n") {
		t.Errorf("refused: %+v", got)
	}
	t.Setenv(inBackground, "end")
	if got := m.on(t, f, "", "server", "start", "s"); got.code != int(refusal.Failed) || !strings.Contains(got.err, "server s was not started") {
		t.Errorf("ended: %+v", got)
	}
}

// beRunner is the program in the background, with a runner that does how.
func beRunner(how string) {
	m := newMachine(1000)
	m.runs = func(_ context.Context, o vm.Options) error {
		what, file, _ := strings.Cut(how, " ")
		switch what {
		case "refuse":
			return refusal.New(refusal.KeyForbids, "enable it", "key k is Disabled")
		case "end":
			return nil
		}
		o.Say("no kvm")
		o.Started(control.Server{Name: o.Server})
		o.Say("this goes to the log")
		dir, _ := os.Getwd()
		words := []string{dir}
		for fd := range 3 {
			path, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
			words = append(words, path)
		}
		_, err := os.Stat("/proc/self/fd/3")
		pipe, _ := os.Readlink("/proc/self/fd/3")
		words = append(words, fmt.Sprint(err == nil && strings.HasPrefix(pipe, "pipe:")))
		return os.WriteFile(file, []byte(strings.Join(words, " ")), 0o600)
	}
	a := &app{hooks: Hooks{Env: Env{UID: 1000, Getenv: os.Getenv}}, isTerminal: func(any) bool { return false }, machine: m.machine}
	args := os.Args[slices.Index(os.Args, "--")+1:]
	os.Exit(a.main(context.Background(), args, os.Stdin, os.Stdout, os.Stderr))
}

// TestScalingStarts: the new members are started, and only those; one that can't be stays, and is told.
func TestScalingStarts(t *testing.T) {
	f, m := withServers(t, "s"), newMachine(1000)
	m.programIs(t, lastWord+`case $name in
		g-3) echo '{"error":{"code":6,"message":"disk g-3-system is attached","hint":"detach it"}}' >&3;;
		*) echo '{"server":{"id":"'$name'","name":"'$name'","status":"running"},"said":["no kvm"]}' >&3;;
		esac`)
	if got := m.on(t, f, "", "scaling", "config", "create", "c", "--from-server", "s"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	got := m.on(t, f, "", "scaling", "group", "create", "g", "--config", "c", "--min", "2", "--max", "4", "--start")
	if got.code != 0 || !strings.Contains(got.out, "made     g-1, g-2\n") || strings.Count(got.err, "warning: no kvm\n") != 2 {
		t.Errorf("create: %+v", got)
	}
	got = m.on(t, f, "", "scaling", "group", "scale", "g", "4", "--start")
	if got.code != int(refusal.Busy) || !strings.Contains(got.out, "made     g-3, g-4\n") || !strings.Contains(got.err, "1 of 2 servers not started: g-3: disk g-3-system is attached\n  → detach it\n") {
		t.Errorf("scale: %+v", got)
	}
	got = m.on(t, f, "", "scaling", "group", "scale", "g", "2", "--start", "--yes")
	if got.code != 0 || strings.Contains(got.out, "made") || !strings.Contains(got.out, "deleted  g-4, g-3\n") {
		t.Errorf("down: %+v", got)
	}
}
