package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/qmp"
	"nbdcrypt/pkg/refusal"
)

// qemu is a QEMU that was started.
type qemu struct {
	cmd         *exec.Cmd
	pid         int
	accelerator string
	monitor     *qmp.Client
	said        tail
	gone        chan struct{} // closed when it has ended
}

// launch starts QEMU on KVM where that is there, else without, and has the guest begin.
func (r *runner) launch(ctx context.Context, h hardware) (*qemu, error) {
	h.accelerator = "tcg"
	if r.kvm {
		h.accelerator = "kvm"
	}
	q, err := r.try(ctx, h)
	if err != nil && h.accelerator == "kvm" && ctx.Err() == nil {
		// What /dev/kvm promises, a host that is a guest itself may not keep.
		words := refusal.From(err).Message
		h.accelerator = "tcg"
		if q, err = r.try(ctx, h); err == nil {
			r.Say("server %s runs without KVM, and slowly: %s", h.server.Name, words)
		}
	}
	return q, err
}

func canKVM() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
	}
	return err == nil
}

func (r *runner) try(ctx context.Context, h hardware) (*qemu, error) {
	q, monitor, screen, err := start(r.program, h)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "", "server %s can't be started: %w", h.server.Name, err)
	}
	r.screen.watch(screen)
	ctx, cancel := context.WithTimeout(ctx, r.start)
	defer cancel()
	q.monitor, err = qmp.Open(ctx, monitor, func(e qmp.Event) { r.post(func() { r.event(e) }) })
	if err == nil {
		err = q.monitor.Do(ctx, "cont", nil, nil)
	}
	if err == nil {
		return q, nil
	}
	q.kill() // it may have ended by itself, and then says why
	<-q.gone
	if words := q.said.last(); words != "" {
		err = errors.New(words)
	}
	return nil, refusal.New(refusal.Failed, "give the server other --memory or --cpus, or see that this host has them", "server %s can't be started, QEMU says: %w", h.server.Name, err)
}

// start starts QEMU and returns our ends of its monitor and its console.
func start(program string, h hardware) (*qemu, net.Conn, net.Conn, error) {
	monitor, theirMonitor, err := socketPair()
	if err != nil {
		return nil, nil, nil, err
	}
	defer theirMonitor.Close()
	screen, theirScreen, err := socketPair()
	if err != nil {
		return nil, nil, nil, errors.Join(err, monitor.Close())
	}
	defer theirScreen.Close()
	q := &qemu{cmd: process.Quiet(exec.Command(program, arguments(h)...)), accelerator: h.accelerator, gone: make(chan struct{})}
	q.cmd.ExtraFiles = []*os.File{theirMonitor, theirScreen} // monitorFD and consoleFD
	q.cmd.Stdout, q.cmd.Stderr = &q.said, &q.said
	q.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err = q.run(); err == nil {
		err = q.limit()
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, monitor.Close(), screen.Close())
	}
	return q, monitor, screen, nil
}

// run starts it. It ends with this process, which is to say with the thread that started it; so that thread waits for it.
func (q *qemu) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := q.cmd.Start()
		if err == nil {
			q.pid = q.cmd.Process.Pid
		}
		started <- err
		if err == nil {
			q.wait()
		}
		close(q.gone)
	}()
	return <-started
}

// wait waits for its end. Where QEMU in $PATH is a script that starts QEMU, what it started ends with it.
func (q *qemu) wait() {
	for unix.Waitid(unix.P_PID, q.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	q.kill() // the group is still there while nobody has heard of the end
	_ = q.cmd.Wait()
}

// limit keeps what the guest reads from its disks out of core dumps, and has the kernel take a guest when memory is short, which is restarted more easily than the
// daemon that all guests need. No guest has begun yet.
func (q *qemu) limit() error {
	if err := q.noCore(); err != nil && !errors.Is(err, unix.ESRCH) {
		q.kill()
		<-q.gone
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	const more = 200 // of 1000
	file := fmt.Sprintf("/proc/%d/oom_score_adj", q.pid)
	if text, err := os.ReadFile(file); err == nil {
		if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = os.WriteFile(file, []byte(strconv.Itoa(min(now+more, 1000))), 0) // works without
		}
	}
	return nil
}

// noCore forbids core dumps by a limit of one byte, which none fits in: with zero the kernel would still give them to a program, where core_pattern names one. Where
// zero is all that may be, they are without memory.
func (q *qemu) noCore() error {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/coredump_filter", q.pid), []byte("0"), 0)
	var now unix.Rlimit
	if err := unix.Prlimit(q.pid, unix.RLIMIT_CORE, nil, &now); err != nil {
		return err
	}
	most := min(now.Max, 1)
	return unix.Prlimit(q.pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: most, Max: most}, nil)
}

// socketPair is two ends of a connection: ours, and a file for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// kill ends QEMU at once, with all of its group. A nil one has ended.
func (q *qemu) kill() {
	if q != nil && q.cmd.Process.Signal(syscall.Signal(0)) == nil { // nobody else has the number
		_ = syscall.Kill(-q.pid, syscall.SIGKILL)
	}
}

// how says how QEMU ended that we did not end. An error is what should not have happened.
func (q *qemu) how(shutdown string) (string, error) {
	status, _ := q.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		err := fmt.Errorf("QEMU was killed by signal %d (%v)", status.Signal(), status.Signal())
		return err.Error(), err
	case status.ExitStatus() != 0:
		err := fmt.Errorf("QEMU failed with exit code %d: %s", status.ExitStatus(), q.said.last())
		return err.Error(), err
	case shutdown == "guest-shutdown":
		return "the guest shut down", nil
	case shutdown == "host-signal":
		return "QEMU was told to end by a signal", nil
	}
	return "QEMU ended", nil
}

// tail keeps the end of what was written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// maxTail is how much of it is kept.
const maxTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(p), nil
}

// last is the last line, without the name that QEMU begins its lines with.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.text))
	line := text[strings.LastIndexByte(text, '\n')+1:]
	return strings.TrimPrefix(line, Program+": ")
}
