package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// keeperVariable tells a process that it was started to stay in the background, as the keeper of a device or the runner of a server, and at which
// descriptor its parent waits for the outcome.
const keeperVariable = "NBDCRYPT_KEEPER"

// outcome is what such a process tells its parent, as JSON: what was attached, or what runs, or why not.
type outcome struct {
	Attached *control.Attached `json:"attached,omitempty"`
	Server   *control.Server   `json:"server,omitempty"`
	Error    *control.Error    `json:"error,omitempty"`
	// Said is what there was to say before.
	Said []string `json:"said,omitempty"`
}

// background starts a command line of this program as a process of its own, in a session of its own, and waits for what it tells. Who is what
// people call that process.
func (a *app) background(cmd *cobra.Command, who string, args []string) (outcome, error) {
	var o outcome
	answers, tell, err := os.Pipe()
	if err != nil {
		return o, err
	}
	defer answers.Close()
	child := exec.Command(cmp.Or(a.program, "/proc/self/exe"), args...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), keeperVariable+"=3")
	child.ExtraFiles = []*os.File{tell}
	child.Stderr = cmd.ErrOrStderr()
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What else was left open for us, such as a pipe that somebody reads to its end, or a lock of a script's, would be held as long as it stays.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; works without
	err = child.Start()
	_ = tell.Close() // it is the child's
	if err != nil {
		return o, fmt.Errorf("%s can't be started: %w", who, err)
	}
	// An interrupt goes to this process alone: the child has another session.
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-cmd.Context().Done():
			_ = child.Process.Signal(syscall.SIGTERM) // it may have ended
		case <-stopped:
		}
	}()
	err = json.NewDecoder(answers).Decode(&o)
	switch {
	case err != nil && cmd.Context().Err() != nil:
		_ = child.Wait()
		return o, refusal.New(refusal.Failed, "repeat the command to do it", "interrupted: %s was ended before all was done", who)
	case err != nil:
		return o, refusal.New(refusal.Failed, "see what it has said, here or in the system's log", "%s ended before all was done: %w", who, errors.Join(err, child.Wait()))
	case o.Error != nil:
		_ = child.Wait()
		return o, o.Error.Refusal()
	}
	return o, nil
}

// parent is the process that waits for a keeper or a runner to be ready.
type parent struct{ pipe *os.File }

// parent tells whether this process was started to stay in the background.
func (a *app) parent() (*parent, bool) {
	fd, err := strconv.Atoi(a.hooks.Env.Getenv(keeperVariable))
	if err != nil || fd < 3 {
		return nil, false
	}
	unix.CloseOnExec(fd)
	return &parent{os.NewFile(uintptr(fd), "parent")}, true
}

func (p *parent) tell(o outcome) error {
	defer p.pipe.Close()
	return json.NewEncoder(p.pipe).Encode(o)
}

// alone has the process use no terminal and no directory of its parent's: they could lie on the device, or end.
func alone() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}

// notify tells the service manager, where there is one.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
