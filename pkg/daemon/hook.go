package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

const (
	// hookTime is what the hook may take for one event.
	hookTime = 30 * time.Second
	// hookLast is what it may take to be gone once it was killed.
	hookLast = 2 * time.Second
	// hookQueue is how many events wait for it.
	hookQueue = 64
	// hookWords is how much of what it says on stderr gets into the log.
	hookWords = 1 << 10
)

// hook runs a program for each event, one at a time. It runs as the daemon's user, so that nobody else may be able to write it.
type hook struct {
	program string
	daemon  *Daemon
	queue   chan event
	ended   chan struct{}
	limit   time.Duration
}

// openHook checks the hook and lets it wait for events.
func (d *Daemon) openHook(context.Context) error {
	if d.o.Hook == "" {
		return nil
	}
	if err := checkHook(d.o.Hook, d.self.UID); err != nil {
		return refusal.New(refusal.Usage, "name a program that root or the daemon's user owns, where nobody else can write", "the hook %s can't be used: %w", d.o.Hook, err)
	}
	if err := keepDescriptors(); err != nil {
		return err
	}
	d.hook = &hook{program: d.o.Hook, daemon: d, queue: make(chan event, hookQueue), ended: make(chan struct{}), limit: hookTime}
	go d.hook.run()
	return nil
}

// keepDescriptors has those that the daemon was started with close at exec(2), as all do that it opens itself.
func keepDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// checkHook refuses a program that others than root and the daemon's user could have written, or could put another in place of.
func checkHook(program string, self uint32) error {
	if !filepath.IsAbs(program) {
		return fmt.Errorf("it is not an absolute path")
	}
	path, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("it is no program: its mode is %v", info.Mode())
	}
	for _, at := range []string{program, path} { // the names that lead to it, too
		for dir := filepath.Dir(at); ; dir = filepath.Dir(dir) {
			folder, err := os.Stat(dir)
			if err != nil {
				return err
			}
			if err := onlyOurs(dir, folder, self); err != nil {
				return err
			}
			if dir == "/" {
				break
			}
		}
	}
	return onlyOurs(path, info, self)
}

// onlyOurs refuses what others can write. In a folder with the sticky bit they can't replace what is not theirs.
func onlyOurs(path string, info fs.FileInfo, self uint32) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0 && owner != self:
		return fmt.Errorf("%s belongs to user %d", path, owner)
	case info.Mode().Perm()&0o022 != 0 && (!info.IsDir() || info.Mode()&fs.ModeSticky == 0):
		return fmt.Errorf("others can write %s, which has mode %v", path, info.Mode())
	}
	return nil
}

// tell queues an event. A hook that does not keep up loses events, never the daemon time. What anybody can bring about, by asking for what
// they may not have, takes only half of the queue, and all that users can only three quarters.
func (h *hook) tell(e event) {
	room := hookQueue
	switch {
	case e.denied:
		room = hookQueue / 2
	case e.Event == eventUnwrapRefused, e.Event == eventServerPaused:
		room = hookQueue * 3 / 4
	}
	if len(h.queue) < room {
		select {
		case h.queue <- e:
			return
		default:
		}
	}
	h.daemon.o.Log.Error("the hook does not keep up: it is not told of an event", "event", e.Event, "project", e.Project, "key", e.Key,
		"resource", e.Resource, "waiting", len(h.queue))
}

// run runs the hook for each event until the daemon stops, and says which events it was not told of then.
func (h *hook) run() {
	defer close(h.ended)
	runtime.LockOSThread() // the hook is killed when the thread that started it ends (PR_SET_PDEATHSIG)
	for {
		select {
		case <-h.daemon.life.Done():
			for len(h.queue) > 0 {
				h.daemon.o.Log.Warn("the daemon stops, and the hook was not told of an event", "event", (<-h.queue).Event)
			}
			return
		case e := <-h.queue:
			h.call(e)
		}
	}
}

// call runs the hook for one event.
func (h *hook) call(e event) {
	said := &words{}
	begun := time.Now()
	err := checkHook(h.program, h.daemon.self.UID) // it may be another by now
	if err == nil {
		err = h.exec(e, said)
	}
	log := h.daemon.o.Log.With("event", e.Event, "key", e.Key, "after", time.Since(begun).Round(time.Millisecond))
	if err != nil {
		log.Error("the hook failed", "err", err, "said", said.String())
		return
	}
	log.Info("the hook was told", "said", said.String())
}

// exec runs the program. It gets the event on stdin and three descriptors, none of ours.
func (h *hook) exec(e event, said *words) error {
	ctx, cancel := context.WithTimeoutCause(h.daemon.life, h.limit, fmt.Errorf("it took more than %v", h.limit))
	defer cancel()
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.program)
	cmd.Dir, cmd.Stdin, cmd.Stderr, cmd.WaitDelay = "/", bytes.NewReader(append(text, '\n')), said, hookLast
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NBDCRYPT_EVENT=" + e.Event,
		"NBDCRYPT_PROJECT=" + inEnv(e.Project), "NBDCRYPT_KEY=" + e.Key, "NBDCRYPT_KEY_ID=" + e.KeyID, "NBDCRYPT_RESOURCE=" + inEnv(e.Resource)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // with what it has started
	err = cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// inEnv is what a caller sent as the environment takes it: nobody keeps an event from the hook by a name that no program could be run with.
func inEnv(s string) string { return strings.ReplaceAll(cut(s), "\x00", "\uFFFD") }

// words are the first ones that a program says.
type words struct{ bytes.Buffer }

// Write implements io.Writer.
func (w *words) Write(p []byte) (int, error) {
	_, _ = w.Buffer.Write(p[:min(len(p), hookWords-w.Len())])
	return len(p), nil
}
