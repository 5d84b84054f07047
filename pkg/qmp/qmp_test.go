package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}` + "\r\n"

// other is the other end of a session, where a script plays QEMU.
type other struct {
	t    *testing.T
	conn net.Conn
	from *bufio.Scanner
}

func (o *other) says(format string, args ...any) {
	if _, err := fmt.Fprintf(o.conn, format, args...); err != nil {
		o.t.Error(err)
	}
}

// hears wants a command and returns its id.
func (o *other) hears(command string) uint64 {
	var r request
	if !o.from.Scan() || json.Unmarshal(o.from.Bytes(), &r) != nil || r.Execute != command {
		o.t.Errorf("QEMU hears %q, %v, not %s", o.from.Bytes(), o.from.Err(), command)
	}
	return r.ID
}

func (o *other) begins() {
	o.says(greeting)
	o.says(`{"return": {}, "id": %d}`+"\r\n", o.hears("qmp_capabilities"))
}

// play has a script play QEMU, beside a client whose time passes at once.
func play(t *testing.T, qemu func(o *other), client func(t *testing.T, conn net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			defer theirs.Close()
			qemu(&other{t, theirs, bufio.NewScanner(theirs)})
		}()
		client(t, ours)
	})
}

func opened(t *testing.T, conn net.Conn, hear func(Event)) *Client {
	c, err := Open(t.Context(), conn, hear)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An answer comes to the command that it answers, between events; a refusal has QEMU's words; the end of QEMU is the end of all.
func TestSession(t *testing.T) {
	play(t, func(o *other) {
		o.begins()
		o.says(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}` + "\r\n")
		o.says(`{"return": {"running": true}, "id": %d}`+"\r\n", o.hears("query-status"))
		o.says(`{"event": "DEVICE_DELETED", "data": {"device": "disk3"}}` + "\r\n")
		o.says(`{"id": %d, "error": {"class": "GenericError", "desc": "no such device"}}`+"\r\n", o.hears("device_del"))
		o.hears("quit")
	}, func(t *testing.T, conn net.Conn) {
		var events []string
		c := opened(t, conn, func(e Event) { events = append(events, e.Name+string(e.Data)) })
		var status struct{ Running bool }
		if err := c.Do(t.Context(), "query-status", nil, &status); err != nil || !status.Running {
			t.Error(status, err)
		}
		err := c.Do(t.Context(), "device_del", map[string]string{"id": "disk3"}, nil)
		if refused := new(Error); !errors.As(err, &refused) || *refused != (Error{"device_del", "GenericError", "no such device"}) {
			t.Error(err)
		}
		if err := c.Do(t.Context(), "quit", nil, nil); err == nil || !strings.Contains(err.Error(), "QEMU has closed the connection") {
			t.Error(err)
		}
		<-c.Gone()
		if got := strings.Join(events, " "); got != `STOP DEVICE_DELETED{"device": "disk3"}` {
			t.Error(got)
		}
	})
}

// A command that is not answered ends at its deadline, or at ours; its late answer is nobody else's.
func TestDeadline(t *testing.T) {
	play(t, func(o *other) {
		o.begins()
		late := o.hears("first")
		second := o.hears("second")
		o.says(`{"return": 1, "id": %d}`+"\n"+`{"return": 2, "id": %d}`+"\n", late, second)
		o.hears("third")
		o.from.Scan() // the end
	}, func(t *testing.T, conn net.Conn) {
		c := opened(t, conn, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Do(ctx, "first", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		var n int
		if err := c.Do(t.Context(), "second", nil, &n); err != nil || n != 2 {
			t.Error(n, err)
		}
		began := time.Now()
		if err := c.Do(t.Context(), "third", nil, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != callTime {
			t.Error(err, time.Since(began))
		}
		_ = c.Close()
		if <-c.Gone(); c.Do(t.Context(), "fourth", nil, nil) == nil {
			t.Error("a command over a closed connection")
		}
	})
}

// What does not greet as QEMU does is none.
func TestNoQEMU(t *testing.T) {
	for name, qemu := range map[string]func(o *other){
		"nothing":    func(o *other) {},
		"noise":      func(o *other) { o.says("SSH-2.0\r\n") },
		"not QMP":    func(o *other) { o.says("{}\r\n") },
		"twice":      func(o *other) { o.says(greeting + greeting) },
		"endless":    func(o *other) { _, _ = o.conn.Write(make([]byte, maxLine+1)) },
		"silent":     func(o *other) { o.from.Scan() },
		"no command": func(o *other) { o.says(greeting); o.hears("qmp_capabilities") },
		"a refusal": func(o *other) {
			o.says(greeting)
			o.hears("qmp_capabilities")
			o.says(`{"error": {"desc": "no"}, "id": 1}` + "\n")
		},
		"wrong types": func(o *other) { o.says(`{"QMP": {}, "event": 1}` + "\n") },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, qemu, func(t *testing.T, conn net.Conn) {
				if c, err := Open(t.Context(), conn, func(Event) {}); err == nil {
					t.Error(c)
				}
				synctest.Wait()
				if _, err := conn.Write([]byte{1}); err == nil {
					t.Error("the connection is still there")
				}
			})
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{greeting, `{"event":"STOP","data":{}}`, `{"id":1,"return":{}}`, `{"id":1,"error":{"class":"GenericError","desc":"x"}}`, `{}`, `{"id":-1}`, `[]`, "\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parse(line)
		if err != nil {
			return
		}
		switch m.kind() {
		case aGreeting, anEvent:
		case anAnswer:
			_ = m.result("x", new(any))
		default:
			t.Errorf("%q is nothing", line)
		}
	})
}

// QEMU answers its last command and is gone: that was an answer.
func TestLastAnswer(t *testing.T) {
	c := &Client{gone: make(chan struct{}), err: errors.New("gone")}
	close(c.gone)
	for range 100 {
		answer := make(chan message, 1)
		answer <- message{}
		if _, err := c.await(t.Context(), answer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.await(t.Context(), nil); err == nil {
		t.Error("an answer of nobody's")
	}
}
