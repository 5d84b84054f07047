package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// world is a daemon and a device, and what was done with them. Its methods are the Client's and the Device's.
type world struct {
	mu       sync.Mutex
	daemon   control.Status
	down     bool
	attached string // the attachment's id, "" for none
	refuses  error  // an attach
	refusing error  // a reconnect
	how      control.Attach
	events   chan blockdev.Event
	did      []string
	said     []string
	noted    Note
}

func (w *world) do(format string, args ...any) {
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

var errDown = refusal.New(refusal.Unreachable, "start it", "no daemon")

func (w *world) Status(context.Context, bool) (control.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return control.Status{}, errDown
	}
	return w.daemon, nil
}

func (w *world) DiskShow(_ context.Context, disk string) (d control.Disk, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attached != "" {
		d.Attachments = []control.Attachment{{ID: "another"}, {ID: w.attached}}
	}
	return d, nil
}

func (w *world) Attach(_ context.Context, disk string, how control.Attach) (control.Attached, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.how = how
	if w.refuses != nil {
		w.do("refuse")
		return control.Attached{}, w.refuses
	}
	w.attached = "second"
	w.do("attach %s", disk)
	return control.Attached{Attachment: "second", DiskID: how.Continues.DiskID, Epoch: how.Continues.Epoch + 1}, nil
}

func (w *world) DetachAs(_ context.Context, disk string, how control.DetachHow) (control.Detached, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attached = ""
	w.do("detach %s %s", disk, how.Attachment)
	return control.Detached{}, nil
}

func (w *world) Path() string                                { return "/dev/nbd0" }
func (w *world) Watch(context.Context) <-chan blockdev.Event { return w.events }

func (w *world) Note(line string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = ReadNote(line)
	return nil
}

func (w *world) Reconnect(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refusing != nil {
		return w.refusing
	}
	w.do("reconnect")
	return nil
}

func (w *world) Disconnect(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.do("disconnect")
	return nil
}

// change changes the world while others look.
func (w *world) change(how func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	how()
}

// restart is another run of the daemon.
func (w *world) restart() {
	w.change(func() { w.daemon.PID++; w.down, w.attached = false, "" })
}

// kept is a keeper at work in time that passes at once.
type kept struct {
	*world
	t       *testing.T
	signals chan os.Signal
	result  chan error
	cancel  func()
}

func play(t *testing.T, script func(k *kept)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{daemon: control.Status{PID: 1, Started: time.Now()}, attached: "first", events: make(chan blockdev.Event)}
		ctx, cancel := context.WithCancel(t.Context())
		k := &kept{world: w, t: t, signals: make(chan os.Signal), result: make(chan error, 1), cancel: cancel}
		o := Options{Client: w, Disk: "db1", How: control.Attach{Device: "/dev/nbd0", Mount: "/mnt"}, Device: w, Daemon: DaemonOf(w.daemon), Reconnect: time.Minute,
			At:  control.Attached{Attachment: "first", DiskID: "id", Epoch: 7},
			End: func(context.Context) error { w.change(func() { w.do("end") }); return nil },
			Say: func(format string, args ...any) {
				w.change(func() { w.said = append(w.said, fmt.Sprintf(format, args...)) })
			}}
		go func() { k.result <- keep(ctx, o, k.signals) }()
		script(k)
		cancel()
	})
}

// lives lets time pass and wants the keeper to live on and nothing else to have been done.
func (k *kept) lives(after time.Duration, did ...string) {
	k.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	select {
	case err := <-k.result:
		k.t.Fatalf("it ended: %v; %q; %q", err, k.did, k.said)
	default:
	}
	k.wants(did)
}

// ends wants the keeper to end with that code.
func (k *kept) ends(code refusal.Code, did ...string) error {
	k.t.Helper()
	var err error
	select {
	case err = <-k.result:
	case <-time.After(time.Hour):
		k.t.Fatalf("it did not end: %q; %q", k.did, k.said)
	}
	if refusal.CodeOf(err) != code {
		k.t.Errorf("it ended with %v; %q", err, k.said)
	}
	k.wants(did)
	return err
}

func (k *kept) wants(did []string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(k.did, did) {
		k.t.Errorf("it did %q, want %q; %q", k.did, did, k.said)
	}
}

// says wants those words, once.
func (k *kept) says(words string) {
	k.t.Helper()
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := strings.Count(strings.Join(k.said, "\n"), words); n != 1 {
		k.t.Errorf("it said %q %d times: %q", words, n, k.said)
	}
}

// The daemon was killed: the next run attaches the disk again, only as the attachment before left it, and the kernel gets new connections.
func TestAnotherRun(t *testing.T) {
	play(t, func(k *kept) {
		k.change(func() { k.down = true })
		k.events <- blockdev.Dead
		k.events <- blockdev.Dead
		k.lives(20 * time.Second)
		k.says("no daemon; start it")
		if want := (Note{"first", 7}); k.noted != want {
			t.Errorf("noted %+v", k.noted)
		}
		k.restart()
		k.lives(time.Second, "attach db1", "reconnect")
		k.says("connected again")
		if c := k.how.Continues; c == nil || *c != (control.Continues{DiskID: "id", Epoch: 7}) || k.how.Device != "/dev/nbd0" || k.how.Mount != "/mnt" {
			t.Errorf("attached as %+v", k.how)
		}
		if want := (Note{"second", 8}); k.noted != want {
			t.Errorf("noted %+v", k.noted)
		}
		// And once more, from there.
		k.restart()
		k.events <- blockdev.Dead
		k.lives(time.Second, "attach db1", "reconnect", "attach db1", "reconnect")
		if k.how.Continues.Epoch != 8 {
			t.Errorf("attached as %+v", k.how.Continues)
		}
		k.events <- blockdev.Gone
		k.ends(refusal.OK, "attach db1", "reconnect", "attach db1", "reconnect")
	})
}

// Locked, or busy: it goes on asking.
func TestWaits(t *testing.T) {
	for _, code := range []refusal.Code{refusal.Locked, refusal.Busy, refusal.Failed} {
		play(t, func(k *kept) {
			k.restart()
			k.change(func() { k.refuses = refusal.New(code, "", "not now") })
			k.events <- blockdev.Dead
			time.Sleep(1100 * time.Millisecond)
			k.change(func() { k.refuses = nil })
			k.lives(time.Second, "refuse", "refuse", "attach db1", "reconnect")
		})
	}
}

// A connection dies and the daemon lives: no attach.
func TestTheSameRun(t *testing.T) {
	play(t, func(k *kept) {
		k.change(func() { k.refusing = errors.New("not noticed yet") })
		k.events <- blockdev.Dead
		k.lives(2 * time.Second)
		k.change(func() { k.refusing = nil })
		k.lives(time.Second, "reconnect")
	})
}

// Somebody detached the disk, or did and attached it again: the device goes, and that is all.
func TestDetachedBesideUs(t *testing.T) {
	for _, attached := range []string{"", "third"} {
		play(t, func(k *kept) {
			k.change(func() { k.attached = attached })
			k.events <- blockdev.Dead
			k.ends(refusal.OK, "disconnect")
			k.says("was detached")
		})
	}
}

// TestRuleA22_ForbiddenKey: the key was disabled meanwhile. It says so, asks seldom until its time is over, and gives up with that code; where
// the key is enabled before that, all goes on.
func TestRuleA22_ForbiddenKey(t *testing.T) {
	forbidden := refusal.New(refusal.KeyForbids, "enable it", "key k is disabled")
	refused := slices.Repeat([]string{"refuse"}, 8)
	play(t, func(k *kept) {
		k.restart()
		k.change(func() { k.refuses = forbidden })
		k.events <- blockdev.Dead
		err := k.ends(refusal.KeyForbids, append(refused, "disconnect")...)
		k.says("key k is disabled; enable it")
		if !strings.Contains(err.Error(), "key k is disabled") || refusal.From(err).Hint != "enable it" {
			t.Error(err)
		}
	})
	play(t, func(k *kept) {
		k.restart()
		k.change(func() { k.refuses = forbidden })
		k.events <- blockdev.Dead
		k.lives(5*time.Second, "refuse")
		k.change(func() { k.refuses = nil })
		k.lives(10*time.Second, "refuse", "attach db1", "reconnect")
	})
}

// Somebody disconnected the device, which is still open: there is nothing to mend.
func TestDisconnectedBesideUs(t *testing.T) {
	play(t, func(k *kept) {
		k.change(func() { k.refusing = fmt.Errorf("x: %w", blockdev.ErrDisconnected) })
		k.events <- blockdev.Dead
		k.ends(refusal.OK)
	})
}

// Where answered writes may be lost, or the disk is something else by now, nothing may go on over it.
func TestNeverOverSomethingElse(t *testing.T) {
	for _, code := range []refusal.Code{refusal.Damaged, refusal.NotFound} {
		play(t, func(k *kept) {
			k.restart()
			k.change(func() { k.refuses = refusal.New(code, "check it", "answered writes may be lost") })
			k.events <- blockdev.Dead
			k.ends(code, "refuse", "disconnect")
		})
	}
}

// No daemon comes: the device goes after its time. One that is attached and can't be reconnected is detached, too.
func TestTooLate(t *testing.T) {
	play(t, func(k *kept) {
		k.change(func() { k.down = true })
		began := time.Now()
		k.events <- blockdev.Dead
		k.ends(refusal.Unreachable, "disconnect")
		if took := time.Since(began); took < time.Minute || took > 62*time.Second {
			t.Errorf("after %v", took)
		}
	})
	play(t, func(k *kept) {
		k.restart()
		k.change(func() { k.refusing = errors.New("it is another size") })
		k.events <- blockdev.Dead
		k.ends(refusal.Failed, "attach db1", "disconnect", "detach db1 second")
	})
}

// A signal ends it in good order, or not at all; and it may have to wait for the link.
func TestSignals(t *testing.T) {
	play(t, func(k *kept) {
		k.signals <- syscall.SIGTERM
		k.ends(refusal.OK, "end")
	})
}

func TestRefusedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{daemon: control.Status{PID: 1}, attached: "first", events: make(chan blockdev.Event)}
		k := &kept{world: w, t: t, signals: make(chan os.Signal), result: make(chan error, 1)}
		ends := make(chan error)
		o := Options{Client: w, Disk: "db1", Device: w, Daemon: DaemonOf(w.daemon), At: control.Attached{Attachment: "first"}, Reconnect: time.Minute, End: func(context.Context) error { return <-ends },
			Say: func(format string, args ...any) {
				w.change(func() { w.said = append(w.said, fmt.Sprintf(format, args...)) })
			}}
		go func() { k.result <- keep(t.Context(), o, k.signals) }()
		k.signals <- syscall.SIGTERM
		ends <- errors.New("it is mounted")
		k.lives(time.Second)
		k.says("/dev/nbd0 stays: it is mounted")
		// The end waits for the link, which is mended meanwhile.
		k.signals <- syscall.SIGTERM
		k.signals <- syscall.SIGINT
		k.events <- blockdev.Dead
		k.lives(time.Second, "reconnect")
		k.events <- blockdev.Gone
		k.lives(time.Second, "reconnect")
		ends <- refusal.New(refusal.Busy, "", "the daemon")
		k.ends(refusal.Busy, "reconnect")
	})
}

// What is no note, or one of another form, names nothing.
func TestReadNote(t *testing.T) {
	if got, want := ReadNote(`{"attachment":"a","epoch":3,"more":1}`), (Note{"a", 3}); got != want {
		t.Errorf("%+v", got)
	}
	for _, line := range []string{"", "x", `{"attachment":"a","epoch":-1}`, `["a"]`} {
		if got := ReadNote(line); got != (Note{}) {
			t.Errorf("%q: %+v", line, got)
		}
	}
}
