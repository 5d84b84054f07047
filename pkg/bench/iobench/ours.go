package iobench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
)

// ours is our server as everybody starts it, with a state of its own.
type ours struct {
	daemon *process.Process
	said   *tail
	client *control.Client
	made   int
	run    string
	dir    string
}

// region is what a daemon's is called that is not told.
const region = "local"

// startOurs starts a daemon whose state, and disks, lie at the site.
func startOurs(ctx context.Context, at *site) (server, error) {
	o := &ours{said: new(tail), run: at.socket() + ".d", dir: at.name("serve")}
	o.client = control.New(filepath.Join(o.run, control.SocketControl))
	if err := o.launch(ctx); err != nil {
		o.close(ctx)
		return nil, err
	}
	if _, err := o.client.GrantCreate(ctx); err != nil {
		o.close(ctx)
		return nil, err
	}
	return o, nil
}

func (o *ours) state() string   { return filepath.Join(o.dir, "state") }
func (o *ours) rootKey() string { return filepath.Join(o.dir, "key", "root.key") }

// launch starts the daemon, once more where it has ended.
func (o *ours) launch(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := process.Quiet(exec.Command(self, "serve", "--state", o.state(), "--run", o.run, "--root-key", o.rootKey()))
	cmd.Stderr = o.said
	return o.start(ctx, cmd)
}

func (o *ours) running() bool { return !o.daemon.Ended() }

// stop ends the daemon in good order.
func (o *ours) stop(ctx context.Context) error {
	if err := o.daemon.Signal(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return o.daemon.How()
}

// kill ends the daemon as a crash does.
func (o *ours) kill(ctx context.Context) error { return o.daemon.Signal(ctx, syscall.SIGKILL) }

// start starts the daemon and waits for its one line.
func (o *ours) start(ctx context.Context, cmd *exec.Cmd) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = in
	o.daemon, err = process.Start(cmd)
	in.Close()
	if err != nil {
		return err
	}
	if err := out.SetReadDeadline(time.Now().Add(readyTime)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready ") {
		return fmt.Errorf("the daemon is not ready, it said %q: %s", line, o.said.last())
	}
	return nil
}

func (o *ours) close(ctx context.Context) {
	o.daemon.Stop(ctx)
	_ = os.RemoveAll(o.run)
}

// disk makes an encrypted disk and attaches it.
func (o *ours) disk(ctx context.Context, size int64) (*export, error) {
	o.made++
	name, encrypted := fmt.Sprint("bench", o.made), true
	if _, err := o.client.DiskCreate(ctx, control.DiskCreate{Name: name, Size: size, Encrypted: &encrypted}); err != nil {
		return nil, err
	}
	at, err := o.client.Attach(ctx, name, control.Attach{})
	if err != nil {
		return nil, err
	}
	e := &export{uri: at.URI, pid: o.daemon.PID, ended: o.ended}
	e.close = func(ctx context.Context) {
		// Where the daemon is gone the files go with the site.
		if _, err := o.client.Detach(ctx, name, true); err == nil {
			_ = o.client.DiskDelete(ctx, name, true)
		}
	}
	if err := e.ready(ctx, o.daemon.Gone()); err != nil {
		e.close(ctx)
		return nil, err
	}
	return e, nil
}

func (o *ours) ended() error {
	if !o.daemon.Ended() {
		return nil
	}
	return fmt.Errorf("the daemon ended (%v): %s", o.daemon.How(), o.said.last())
}
