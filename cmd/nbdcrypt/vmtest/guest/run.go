package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
)

// run runs a script and sends what it says as it says it. What the script leaves running may go on: its output is the console's from then on.
func (p *port) run(r wire.Request) {
	code, err := p.script(r)
	a := wire.Answer{ID: r.ID, End: true, Code: code}
	if err != nil {
		a.Error = err.Error()
	}
	p.answer(a)
}

func (p *port) script(r wire.Request) (int, error) {
	if err := linkDisks(); err != nil {
		return 0, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/bin/sh", "-e", "-c", r.Script)
	cmd.Stdout, cmd.Stderr, cmd.Dir = to, to, "/root"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.mu.Lock() // a request to kill it has to find it
	if err = cmd.Start(); err == nil {
		p.running[r.ID] = cmd.Process.Pid
	}
	p.mu.Unlock()
	to.Close()
	if err != nil {
		from.Close()
		return 0, err
	}
	said := make(chan struct{})
	out := &output{p, r.ID}
	go func() {
		_, _ = io.Copy(out, from)
		close(said)
	}()
	err = cmd.Wait()
	p.mu.Lock()
	delete(p.running, r.ID)
	p.mu.Unlock()
	if late := from.SetReadDeadline(time.Now()); late != nil {
		return 0, late
	}
	<-said
	drain(from, out)
	go leftTo(from, os.Stdout)
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		status := ended.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
	return 0, err
}

// output sends what is written to it as a request's output.
type output struct {
	port *port
	id   uint64
}

func (o *output) Write(b []byte) (int, error) {
	o.port.answer(wire.Answer{ID: o.id, Out: b})
	return len(b), nil
}

// drain reads what is in a pipe without waiting for more.
func drain(from *os.File, to io.Writer) {
	conn, err := from.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		for buf := make([]byte, 64<<10); ; {
			n, err := syscall.Read(int(fd), buf)
			if n <= 0 || err != nil {
				return
			}
			_, _ = to.Write(buf[:n])
		}
	})
}

// leftTo copies what comes later, until everybody who could write has ended.
func leftTo(from *os.File, to io.Writer) {
	defer from.Close()
	if from.SetReadDeadline(time.Time{}) == nil {
		_, _ = io.Copy(to, from)
	}
}
