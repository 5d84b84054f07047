package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// talking is both ends of a line over a real socket; the daemon's end does serve.
func talking(t *testing.T, serve func(*Line)) (*Line, error) {
	t.Helper()
	var served sync.WaitGroup
	served.Add(1)
	socket := listen(t, map[string]http.HandlerFunc{RouteServerRun: func(w http.ResponseWriter, r *http.Request) {
		defer served.Done()
		var how ServerRun
		if _, err := TakeBody(w, r); err != nil {
			t.Error(err)
		}
		if err := ReadJSON(r, &how); err != nil || how.Token != "t" || r.PathValue("server") != "s/1" {
			t.Errorf("%+v, %v", how, err)
		}
		if serve == nil {
			WriteError(w, refusal.New(refusal.KeyForbids, "enable it", "key k is Disabled"))
			return
		}
		l, err := AcceptLine(w)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		serve(l)
	}})
	l, err := New(socket).ServerRun(t.Context(), "s/1", ServerRun{Token: "t"})
	if err != nil {
		served.Wait()
		return nil, err
	}
	t.Cleanup(func() { _ = l.Close(); served.Wait() })
	return l, nil
}

// Both ends send as they like, from several goroutines; what one says the other hears whole and in order.
func TestLineBothWays(t *testing.T) {
	const n = 200
	big := strings.Repeat("ü\n\"", 30<<10)
	l, err := talking(t, func(l *Line) {
		for range n {
			var in RunReport
			if err := l.Receive(&in); err != nil {
				t.Error(err)
				return
			}
			if err := l.Send(RunOrder{ID: in.ID, Do: in.Ended}); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	for i := range 4 {
		sending.Go(func() {
			for j := range n / 4 {
				text := fmt.Sprint(i)
				if j%20 == 0 {
					text = big
				}
				if err := l.Send(RunReport{ID: i*n + j, Ended: text}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last := map[int]int{}
	for range n {
		var o RunOrder
		if err := l.Receive(&o); err != nil {
			t.Fatal(err)
		}
		if o.Do != big && o.Do != fmt.Sprint(o.ID/n) {
			t.Errorf("order %d says %.20q", o.ID, o.Do)
		}
		if seen, is := last[o.ID/n]; is && o.ID <= seen {
			t.Errorf("%d came after %d", o.ID, seen)
		}
		last[o.ID/n] = o.ID
	}
	sending.Wait()
	if err := l.Receive(&RunOrder{}); !errors.Is(err, io.EOF) {
		t.Errorf("the other end has closed: %v", err)
	}
}

// A call that is refused is no line, and says why.
func TestLineRefused(t *testing.T) {
	_, err := talking(t, nil)
	wantCode(t, err, refusal.KeyForbids, "Disabled", "enable it")
	_, err = New(t.TempDir()+"/none").ServerRun(t.Context(), "s", ServerRun{})
	wantCode(t, err, refusal.Unreachable)
}

// Who waits hears that this end was closed.
func TestLineClosedHere(t *testing.T) {
	hold := make(chan struct{})
	l, err := talking(t, func(*Line) { <-hold })
	if err != nil {
		t.Fatal(err)
	}
	defer close(hold)
	heard := make(chan error)
	go func() { heard <- l.Receive(&RunOrder{}) }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-heard; err == nil {
		t.Error("it hears nothing")
	}
}

// lineOf is a line that hears some bytes.
func lineOf(sent []byte) *Line {
	return &Line{conn: nothing{}, from: bufio.NewReader(bytes.NewReader(sent))}
}

type nothing struct{ net.Conn }

func (nothing) Close() error { return nil }

// What is longer than a line may be is refused before it is all in memory; what is no JSON, or breaks off, is no line.
func TestLineLimits(t *testing.T) {
	quoted := func(n int) []byte {
		return append(append([]byte(`{"ended":"`), bytes.Repeat([]byte("x"), n)...), "\"}\n"...)
	}
	var in RunReport
	if err := lineOf(quoted(maxLine - 100)).Receive(&in); err != nil || len(in.Ended) != maxLine-100 {
		t.Errorf("a long line: %v", err)
	}
	for what, sent := range map[string][]byte{"too long": quoted(2 * maxLine), "without an end": bytes.Repeat([]byte("x"), 4*maxLine)} {
		from := bytes.NewReader(sent)
		l := &Line{conn: nothing{}, from: bufio.NewReader(from)}
		if err := l.Receive(&in); err == nil || !strings.Contains(err.Error(), "longer") {
			t.Errorf("%s: %v", what, err)
		}
		if read := len(sent) - from.Len(); read > maxLine+64<<10 {
			t.Errorf("%s: %d bytes were read", what, read)
		}
	}
	for _, sent := range []string{"", "{", `{"ended":"cut off"}`, "\n", "null null\n", "[]\n", "{}{}\n", `{"id":"x"}` + "\n", "\x00\n"} {
		if err := lineOf([]byte(sent)).Receive(&in); err == nil {
			t.Errorf("%q was heard", sent)
		}
	}
}

// FuzzLine: whatever arrives, what is heard is lines of JSON, each no longer than a line may be, and what was heard is heard again as it is sent.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"taken":true}` + "\n" + `{"running":{"pid":7,"console":"/c","accelerator":"kvm"}}` + "\n"))
	f.Add([]byte(`{"id":3,"error":{"code":6,"message":"m","hint":"h"}}` + "\n" + `{"left":"x"}`))
	f.Add(bytes.Repeat([]byte(" "), 5000))
	f.Fuzz(func(t *testing.T, sent []byte) {
		l := lineOf(sent)
		for {
			var in RunReport
			if err := l.Receive(&in); err != nil {
				return
			}
			text, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			var again RunReport
			if err := lineOf(append(text, '\n')).Receive(&again); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
}
