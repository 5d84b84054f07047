package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
)

// port is the serial port to the test, and what runs for it.
type port struct {
	mu      sync.Mutex
	to      *json.Encoder
	running map[uint64]int // process groups by the request that they were started for
}

// agent serves the test until the machine goes off.
func agent([]string) int {
	f, err := openPort()
	if err != nil {
		fmt.Println("guest:", err)
		return 1
	}
	p := &port{to: json.NewEncoder(f), running: map[uint64]int{}}
	p.answer(wire.Answer{End: true})
	for from := json.NewDecoder(bufio.NewReaderSize(f, 1<<20)); ; {
		var r wire.Request
		if err := from.Decode(&r); err != nil {
			fmt.Println("guest: reading from the test:", err)
			return 1
		}
		if r.Op == wire.Put {
			p.end(r, put(r)) // in order: a file comes in pieces
			continue
		}
		go p.serve(r)
	}
}

func (p *port) serve(r wire.Request) {
	switch r.Op {
	case wire.Run:
		p.run(r)
	case wire.Get:
		p.end(r, p.get(r))
	case wire.Kill:
		p.mu.Lock()
		if group := p.running[r.ID]; group > 0 {
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
		p.mu.Unlock()
	case wire.Off:
		syscall.Sync()
		p.end(r, syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF))
	default:
		p.end(r, fmt.Errorf("the guest knows no %q", r.Op))
	}
}

func (p *port) answer(a wire.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.to.Encode(a); err != nil {
		fmt.Println("guest: answering the test:", err)
	}
}

// end is the last answer to a request that no script ran for.
func (p *port) end(r wire.Request, err error) {
	a := wire.Answer{ID: r.ID, End: true}
	if err != nil {
		a.Error = err.Error()
	}
	p.answer(a)
}

func put(r wire.Request) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if r.First {
		flags |= os.O_TRUNC
		if err := os.MkdirAll(filepath.Dir(r.Path), 0o755); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(r.Path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(r.Data)
	return errors.Join(err, f.Chmod(os.FileMode(r.Mode)), f.Close())
}

func (p *port) get(r wire.Request) error {
	f, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	for buf := make([]byte, wire.Piece); ; {
		n, err := f.Read(buf)
		if n > 0 {
			p.answer(wire.Answer{ID: r.ID, Out: buf[:n]})
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// openPort waits for the port to appear: its driver looks for ports when it has been loaded.
func openPort() (*os.File, error) {
	for range 1000 {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			if name, _ := os.ReadFile(path); strings.TrimSpace(string(name)) == wire.Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("there is no virtio-serial port %s", wire.Port)
}
