package iobench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/process"
)

// readyTime is how long a server may take to accept connections.
const readyTime = 30 * time.Second

// peer is a server that is a process of its own for each disk.
type peer struct {
	at      *site
	image   func(ctx context.Context, at *site, path string, size int64) error // nil where the server makes it
	command func(at *site, image, socket string, size int64) *exec.Cmd
}

func newPeer(image func(context.Context, *site, string, int64) error, command func(*site, string, string, int64) *exec.Cmd) func(context.Context, *site) (server, error) {
	return func(_ context.Context, at *site) (server, error) { return &peer{at, image, command}, nil }
}

func (p *peer) close(context.Context) {}

// disk makes an image and serves it.
func (p *peer) disk(ctx context.Context, size int64) (*export, error) {
	image, socket := p.at.name("image"), p.at.socket()
	if p.image != nil {
		if err := p.image(ctx, p.at, image, size); err != nil {
			_ = os.RemoveAll(image)
			return nil, err
		}
	}
	e, err := serve(ctx, p.command(p.at, image, socket, size), "nbd+unix:///?socket="+socket)
	if err != nil {
		_ = os.RemoveAll(image)
		return nil, err
	}
	stop := e.close
	e.close = func(ctx context.Context) {
		stop(ctx)
		_ = os.Remove(socket)
		_ = os.RemoveAll(image) // the whole site is removed at the end, and that is looked at
	}
	return e, nil
}

// serve starts a server and waits until it serves uri.
func serve(ctx context.Context, cmd *exec.Cmd, uri string) (*export, error) {
	var said tail
	cmd.Stderr = &said
	p, err := process.Start(process.Quiet(cmd))
	if err != nil {
		return nil, err
	}
	e := &export{uri: uri, pid: p.PID, close: p.Stop}
	e.ended = func() error {
		if !p.Ended() {
			return nil
		}
		return fmt.Errorf("the server ended (%v): %s", p.How(), said.last())
	}
	if err := e.ready(ctx, p.Gone()); err != nil {
		p.Stop(ctx)
		return nil, err
	}
	return e, nil
}

// ready waits until the export can be opened, and notes what it is able to.
func (e *export) ready(ctx context.Context, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		client, err := nbdclient.Dial(ctx, e.uri)
		if err == nil {
			e.flags = abilities(client.Info().Flags)
			return client.Disconnect()
		}
		select {
		case <-gone:
			return e.ended()
		case <-ctx.Done():
			return fmt.Errorf("no server after %v: %w", readyTime, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// abilities are the transmission flags of an export, in the protocol's bits.
type abilities uint16

func (a abilities) flush() bool { return a&(1<<2) != 0 }
func (a abilities) fua() bool   { return a&(1<<3) != 0 }

// refuses says why a column can't be measured on an export, if so.
func (a abilities) refuses(c column) string {
	switch {
	case c.kind == byFUA && !a.fua():
		return "it has no FUA"
	case c.fsync > 0 && !a.flush():
		return "it has no flush"
	}
	return ""
}

// tail keeps the end of what a server says.
type tail struct{ end []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.end = append(t.end, p...)
	t.end = t.end[max(0, len(t.end)-most):]
	return len(p), nil
}

func (t *tail) last() []byte { return lastLine(bytes.Clone(t.end)) }
