package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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

// keeperVariable tells a process that it was started to become a keeper in the background, and at which descriptor its parent waits for the
// outcome.
const keeperVariable = "NBDCRYPT_KEEPER"

// outcome is what a keeper tells its parent, as JSON.
type outcome struct {
	Attached *control.Attached `json:"attached,omitempty"`
	Error    *control.Error    `json:"error,omitempty"`
}

// background starts this command again as a process of its own, in a session of its own, and tells what came of it.
func (a *app) background(cmd *cobra.Command) error {
	answers, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answers.Close()
	child := exec.Command(cmp.Or(a.program, "/proc/self/exe"), a.args...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), keeperVariable+"=3")
	child.ExtraFiles = []*os.File{tell}
	child.Stderr = cmd.ErrOrStderr()
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	_ = tell.Close() // it is the child's
	if err != nil {
		return fmt.Errorf("the device's keeper can't be started: %w", err)
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
	var o outcome
	if err := json.NewDecoder(answers).Decode(&o); err != nil {
		return refusal.New(refusal.Failed, "see what it has said, here or in the system's log", "the device's keeper ended before all was done: %w", errors.Join(err, child.Wait()))
	}
	if o.Error != nil {
		_ = child.Wait()
		return o.Error.Refusal()
	}
	return a.attached(cmd, *o.Attached)
}

// parent is the process that waits for a keeper to be ready.
type parent struct{ pipe *os.File }

// parent tells whether this process was started to become a keeper.
func (a *app) parent() (*parent, bool) {
	fd, err := strconv.Atoi(a.hooks.Env.Getenv(keeperVariable))
	if err != nil || fd < 3 {
		return nil, false
	}
	unix.CloseOnExec(fd)
	return &parent{os.NewFile(uintptr(fd), "parent")}, true
}

// keep tells the parent what was done, lets go of all that it has lent, and keeps the device.
func (p *parent) keep(cmd *cobra.Command, k *kept, err error) error {
	if err != nil {
		return p.tell(outcome{Error: control.ErrorOf(err)})
	}
	if err := p.tell(outcome{Attached: &k.at}); err != nil {
		return errors.Join(err, k.undo(cmd.Context())) // nobody waits for it any more
	}
	if err := alone(); err != nil {
		return errors.Join(err, k.undo(cmd.Context()))
	}
	log := newVoice(toSyslog)
	defer log.close()
	k.say = log.say
	if err := k.keep(cmd.Context()); err != nil {
		r := refusal.From(err)
		k.say("%s; %s", r.Message, r.Hint)
		return err
	}
	return nil
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
