package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// A server runs from its lease to its guest's shutdown; what was typed reached the guest, its last words whoever looked, and nothing is left.
func TestRun(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "web1")
	x := d.runs(nil)
	l := d.lease()
	if !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(l.how.Token) || l.how.Continues != nil {
		t.Errorf("it asked for %+v", l.how)
	}
	told := l.taken()
	s := x.up()
	if s.Status != control.ServerRunning || s.PID == 0 || s.PID != told.PID || s.Console != told.Console || s.Accelerator != "tcg" || told.Accelerator != "tcg" || s.Since == nil {
		t.Errorf("started %+v, told %+v", s, told)
	}
	d.change(func() {
		if d.shown < 3 {
			t.Error("the daemon did not know yet")
		}
	})
	c := look(t, s.Console)
	c.types("say hello")
	c.sees("\nhello")
	c.sees("<cont null>")
	c.types("limits")
	if !strings.Contains(c.String(), "core 1 filter 00000000 oom ") && !strings.Contains(c.String(), "core 0 filter 00000000 oom ") {
		t.Error(c)
	}
	ours, _ := os.ReadFile("/proc/self/oom_score_adj")
	if adjusted := fmt.Sprintf("oom %d", number(t, string(ours))+200); !strings.Contains(c.String(), adjusted) {
		t.Errorf("not %s: %s", adjusted, c)
	}
	var log strings.Builder
	if err := Console(t.Context(), s.Console, nil, &log, true); err != nil || !strings.Contains(log.String(), "hello") {
		t.Errorf("kept were %q, %v", &log, err)
	}
	fmt.Fprintln(c.in, "off")
	l.ends("the guest shut down")
	x.ends(refusal.OK, "")
	if err := <-c.done; err != nil || !strings.HasSuffix(c.String(), "last words\n") {
		t.Errorf("%v, %q", err, c)
	}
	if err := Console(t.Context(), s.Console, nil, &log, true); refusal.CodeOf(err) != refusal.Busy {
		t.Error(err)
	}
}

func number(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// However QEMU ends, the daemon and the caller hear how.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		typed, how string
		code       refusal.Code
	}{
		"killed":     {"", "QEMU was killed by signal 9 (killed)", refusal.Failed},
		"failed":     {"die 3", "QEMU failed with exit code 3: bad luck", refusal.Failed},
		"terminated": {"term", "QEMU was told to end by a signal", refusal.OK},
		"quiet":      {"end", "QEMU ended", refusal.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "web1")
			x := d.runs(nil)
			l := d.lease()
			l.taken()
			if s := x.up(); test.typed == "" {
				_ = syscall.Kill(s.PID, syscall.SIGKILL)
			} else {
				fmt.Fprintln(look(t, s.Console).in, test.typed)
			}
			l.ends(test.how)
			words := test.how
			if test.code == refusal.OK {
				words = ""
			}
			x.ends(test.code, words)
		})
	}
}

// A script in $PATH that starts QEMU, as some systems have, is QEMU too: neither outlives the other.
func TestWrapper(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(l *lease, script int){
		"switched off":     func(l *lease, _ int) { l.order(control.RunOrder{Do: control.OrderKill}) },
		"script is killed": func(_ *lease, script int) { _ = syscall.Kill(script, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, script := newDaemon(t, "web1"), filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n'"+fakeProgram(t)+"' \"$@\"\nexit $?\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			x := d.runs(func(r *runner) { r.program = script })
			l := d.lease()
			l.taken()
			end(l, x.up().PID)
			l.ends("")
			x.ends(map[string]refusal.Code{"script is killed": refusal.Failed}[name], "")
		})
	}
}

// What keeps a server from starting is what Run returns, and the daemon is told where it had lent the disks.
func TestStartFails(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "big")
	x := d.runs(nil)
	l := d.lease()
	l.hears(func(r control.RunReport) bool { return r.Taken })
	l.ends("QEMU says: cannot set up guest memory 'pc.ram': Cannot allocate memory")
	x.ends(refusal.Failed, "server big can't be started, QEMU says: cannot set up guest memory 'pc.ram'")

	d = newDaemon(t, "web1")
	x = d.runs(func(r *runner) { r.program = "/none/such" })
	d.lease().ends("no such file")
	x.ends(refusal.Failed, "no such file")

	d = newDaemon(t, "web1")
	d.refuses = refusal.New(refusal.KeyForbids, "enable it", "disk d1: its key k is disabled")
	d.runs(nil).ends(refusal.KeyForbids, "disk d1: its key k is disabled")

	d.crash()
	d.runs(nil).ends(refusal.Unreachable, "no daemon")

	d = newDaemon(t, "web1")
	for n := range ports {
		d.disks = append(d.disks, d.disk(fmt.Sprint(n), control.DataDisk))
	}
	x = d.runs(nil)
	var none control.RunReport
	if err := d.lease().line.Receive(&none); err == nil {
		t.Errorf("too many disks were taken: %+v", none)
	}
	x.ends(refusal.Failed, "can have 24 disks, and this one has 26")
}

// Where KVM is there and does not work, the server starts without; what fails without it, too, is said in the last words.
func TestNoKVM(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "nokvm")
	x := d.runs(func(r *runner) { r.kvm = true })
	if told := d.lease().taken(); told.Accelerator != "tcg" {
		t.Error(told)
	}
	x.says("runs without KVM")
	d = newDaemon(t, "web1")
	d.runs(func(r *runner) { r.kvm = true })
	if told := d.lease().taken(); told.Accelerator != "kvm" {
		t.Error(told)
	}
	d = newDaemon(t, "big")
	x = d.runs(func(r *runner) { r.kvm = true })
	x.ends(refusal.Failed, "Cannot allocate memory")
	if len(x.said) > 0 {
		t.Error(x.said)
	}
}

// Who is stopped before it runs has not started: by a signal, an order, or a daemon that goes. Nothing waits for a QEMU that says nothing.
func TestStoppedBeforeItRuns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stop func(x *running, l *lease)
		code refusal.Code
	}{
		"signal": {func(x *running, l *lease) { x.post(x.asked) }, refusal.Failed},
		"stop":   {func(x *running, l *lease) { l.order(control.RunOrder{Do: control.OrderStop}) }, refusal.Failed},
		"kill":   {func(x *running, l *lease) { l.order(control.RunOrder{Do: control.OrderKill}) }, refusal.Failed},
		"daemon": {func(x *running, l *lease) { _ = l.line.Close() }, refusal.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "silent")
			x := d.runs(nil)
			l := d.lease()
			l.hears(func(r control.RunReport) bool { return r.Taken })
			if r := l; name == "stop" {
				if r := r.order(control.RunOrder{Do: control.OrderPlug, Disk: &control.RunDisk{}}); r.Error == nil || r.Error.Code != int(refusal.Busy) {
					t.Errorf("plugged into nothing: %+v", r)
				}
			}
			test.stop(x, l)
			x.ends(test.code, "")
		})
	}
	d := newDaemon(t, "silent")
	x := d.runs(func(r *runner) { r.start = 100 * time.Millisecond })
	x.ends(refusal.Failed, "waiting for QEMU's greeting")
}

// The guest is asked to shut down; one that does not is switched off when its time is over, or at once, and the answer says so.
func TestStop(t *testing.T) {
	t.Parallel()
	stop := control.RunOrder{Do: control.OrderStop, Timeout: "1h"}
	for name, test := range map[string]struct {
		typed   []string
		orders  []control.RunOrder
		how     string
		warning string
	}{
		"well":        {nil, []control.RunOrder{stop}, "the guest shut down", ""},
		"deaf":        {[]string{"deaf"}, []control.RunOrder{{Do: control.OrderStop, Timeout: "100ms"}}, "not shut down within 100ms, and was switched off", "not shut down within 100ms"},
		"kill":        {[]string{"deaf"}, []control.RunOrder{{Do: control.OrderKill}}, "the guest was switched off", ""},
		"then kill":   {[]string{"deaf"}, []control.RunOrder{stop, {Do: control.OrderKill}}, "the guest was switched off", ""},
		"then sooner": {[]string{"deaf"}, []control.RunOrder{stop, {Do: control.OrderStop, Timeout: "10ms"}, stop}, "within 10ms", "within 10ms"},
		"standing":    {[]string{"deaf", "full"}, []control.RunOrder{{Do: control.OrderStop, Timeout: "100ms"}}, "stood still (disk sys: a write failed: No space left on device)", "stood still"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "web1")
			x := d.runs(nil)
			l := d.lease()
			l.taken()
			c := look(t, x.up().Console)
			for _, line := range test.typed {
				c.types(line)
			}
			last := 0
			for _, o := range test.orders {
				last = l.orders(o)
			}
			answer := l.answer(last)
			if answer.Error != nil || (answer.Warning == "") != (test.warning == "") || !strings.Contains(answer.Warning, test.warning) {
				t.Errorf("answered %+v", answer)
			}
			l.ends(test.how)
			x.ends(refusal.OK, "")
		})
	}
}

// A guest that is still booting does not hear the first time.
func TestPressesAgain(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "web1")
	x := d.runs(nil)
	l := d.lease()
	l.taken()
	c := look(t, x.up().Console)
	c.types("deaf")
	x.post(x.asked)
	until(t, "it is pressed three times", func() bool { return strings.Count(c.String(), "<system_powerdown null>") >= 3 })
	x.post(x.asked)
	l.ends("switched off by a signal")
	x.ends(refusal.OK, "")
}

// The first signal asks, the second does not; that of ctx is one of them.
func TestSignals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before  bool
		context bool
		signals int
		want    int
	}{
		"context alone": {false, true, 0, 1}, "one": {false, false, 1, 1}, "both are one": {false, true, 1, 1}, "two": {false, true, 2, 2}, "before": {true, true, 0, 1}, "before and one": {true, true, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunner(Options{}, "", quick)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				asked, signals := 0, make(chan os.Signal)
				go r.hearSignals(test.before, ctx.Done(), signals)
				go func() {
					for {
						select {
						case <-r.inbox:
							asked++
						case <-r.done:
							return
						}
					}
				}()
				if test.context {
					cancel()
				}
				for range test.signals {
					signals <- syscall.SIGTERM
				}
				synctest.Wait()
				if asked != test.want {
					t.Errorf("asked %d times, not %d", asked, test.want)
				}
				close(r.done)
			})
		})
	}
}

// A real signal reaches a real Run.
func TestRunItself(t *testing.T) {
	if _, err := Find(); err != nil && refusal.CodeOf(err) != refusal.Failed {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(); refusal.CodeOf(err) != refusal.Failed || !strings.Contains(refusal.From(err).Hint, "qemu-system-x86") && !strings.Contains(err.Error(), "x86-64 alone") {
		t.Error(err)
	}
	program := fakeProgram(t)
	t.Setenv("PATH", strings.TrimSuffix(program, "/"+Program))
	if found, err := Find(); err != nil && !strings.Contains(err.Error(), "x86-64 alone") || err == nil && found != program {
		t.Fatal(found, err)
	} else if err != nil {
		t.Skip(err)
	}
	// Whoever else is told of the signal does not die of it.
	other := make(chan os.Signal, 1)
	signal.Notify(other, syscall.SIGHUP)
	defer signal.Stop(other)
	d := newDaemon(t, "web1")
	result := make(chan error, 1)
	go func() {
		result <- Run(t.Context(), Options{Client: control.New(d.socket), Server: "web1", RunDir: t.TempDir(), Reconnect: time.Minute, Say: t.Logf})
	}()
	l := d.lease()
	l.taken()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	l.ends("the guest shut down")
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// QEMU does not outlive a runner that is killed.
func TestEndsWithItsRunner(t *testing.T) {
	if os.Getenv("VM_RUNNER") != "" {
		_ = Run(context.Background(), Options{Client: control.New(os.Getenv("VM_RUNNER")), Server: "web1", RunDir: os.Getenv("VM_DIR"), Reconnect: time.Minute})
		return
	}
	t.Parallel()
	if _, err := Find(); err != nil && strings.Contains(err.Error(), "x86-64 alone") {
		t.Skip(err)
	}
	d := newDaemon(t, "web1")
	runner := exec.Command(os.Args[0], "-test.run=^TestEndsWithItsRunner$")
	runner.Env = append(os.Environ(), "VM_RUNNER="+d.socket, "VM_DIR="+t.TempDir(), "PATH="+strings.TrimSuffix(fakeProgram(t), "/"+Program))
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	pid := d.lease().taken().PID
	_ = runner.Process.Kill()
	_ = runner.Wait()
	until(t, "QEMU ends", func() bool { return gone(pid) })
}

// gone tells whether a process has ended, though nobody may have heard of it yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// The command line, whole: what is in it was tried.
func TestArguments(t *testing.T) {
	disk := func(name, role string, number int, readOnly bool) drive {
		return drive{RunDisk: control.RunDisk{Role: role, DiskID: name + "-4a59-4687-8796-a5b4c3d2e1f0", Export: "0123456789abcdef0123456789abcdef/" + name, Socket: "/run/a,b \"c\"/nbd.sock", ReadOnly: readOnly, BlockSize: 4096 >> (3 * number)},
			number: number, port: number}
	}
	got := arguments(hardware{server: control.Server{ID: serverID, Name: "a,b", CPUs: 2, Memory: 512 << 20, Network: control.NetworkUser},
		disks: []drive{disk("6f1d2c3b", control.SystemDisk, 0, false), disk("7f1d2c3b", control.DataDisk, 1, true)}, accelerator: "kvm", wait: 6 * time.Minute})
	want, err := os.ReadFile("testdata/arguments.json")
	if err != nil {
		t.Fatal(err)
	}
	var wanted []string
	if err := json.Unmarshal(want, &wanted); err != nil || strings.Join(got, "\n") != strings.Join(wanted, "\n") {
		text, _ := json.MarshalIndent(got, "", "\t")
		t.Errorf("%v; the arguments are\n%s", err, text)
	}
	none := arguments(hardware{server: control.Server{Network: control.NetworkNone}})
	if s := strings.Join(none, " "); !strings.Contains(s, "-nic none") || strings.Contains(s, "virtio-net") {
		t.Error(s)
	}
}
