package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// asked is what a server got that asks for a passphrase.
type asked struct {
	passphrase []byte
	room       int
	err        error
	request    *http.Request
}

// asks serves one route that asks for a passphrase and answers with what body makes of it.
func asks(t *testing.T, route string, body func(*asked) (any, error)) (socket string, got chan *asked) {
	got = make(chan *asked, 10)
	return listen(t, map[string]http.HandlerFunc{route: func(w http.ResponseWriter, r *http.Request) {
		a := NewAsker(w, r)
		defer a.Close()
		if _, err := TakeBody(w, r); err != nil {
			WriteError(w, err)
			return
		}
		g := &asked{request: r}
		g.err = a.Passphrase(func(n int) ([]byte, error) {
			g.room, g.passphrase = n, make([]byte, n)
			return g.passphrase, nil
		})
		v, err := body(g)
		if g.err != nil {
			err = g.err
		}
		if got <- g; err != nil {
			WriteError(a, err)
			return
		}
		WriteJSON(a, http.StatusOK, v)
	}}), got
}

// TestPassphraseCalls: the passphrase arrives whole, is wiped, and the answer is as any other.
func TestPassphraseCalls(t *testing.T) {
	for _, n := range []int{1, 9, MaxPassphrase} {
		text := strings.Repeat("p", n-1) + "\n" // no byte of it means anything
		passphrase := []byte(text)
		socket, got := asks(t, RouteRootPassphrase, func(*asked) (any, error) { return RootState{Changed: true, Slot: &Slot{ID: "s"}}, nil })
		state, err := New(socket).In("p q").RootPassphrase(t.Context(), passphrase)
		g := <-got
		if err != nil || !state.Changed || state.Slot.ID != "s" {
			t.Errorf("%+v, %v", state, err)
		}
		if string(g.passphrase) != text || g.request.URL.Query().Get(QueryProject) != "p q" || len(g.request.Header.Get(HeaderRequest)) != 36 {
			t.Errorf("%d bytes arrived as %q, with %v", n, g.passphrase, g.request.URL)
		}
		if !bytes.Equal(passphrase, make([]byte, n)) {
			t.Error("the passphrase was not wiped")
		}
	}
	socket, got := asks(t, RouteSlotAdd, func(*asked) (any, error) { return Slot{ID: "new"}, nil })
	slot, err := New(socket).SlotAdd(t.Context(), "a&b=c", []byte("secret"))
	if g := <-got; err != nil || slot.ID != "new" || g.request.URL.Query().Get(QueryName) != "a&b=c" || string(g.passphrase) != "secret" {
		t.Errorf("%+v, %v, %+v", slot, err, g)
	}
}

// TestPassphraseRefused: a refusal comes through whether the passphrase was asked for or not, and in the second case the
// passphrase stays.
func TestPassphraseRefused(t *testing.T) {
	no := refusal.New(refusal.Locked, "try again", "wrong")
	socket, _ := asks(t, RouteRootPassphrase, func(*asked) (any, error) { return nil, no })
	_, err := New(socket).RootPassphrase(t.Context(), []byte("secret"))
	wantCode(t, err, refusal.Locked, "wrong", "try again")

	socket = listen(t, map[string]http.HandlerFunc{RouteRootPassphrase: func(w http.ResponseWriter, r *http.Request) {
		a := NewAsker(w, r)
		defer a.Close()
		WriteError(a, no)
	}})
	passphrase := []byte("secret")
	_, err = New(socket).RootPassphrase(t.Context(), passphrase)
	wantCode(t, err, refusal.Locked, "wrong")
	if !bytes.Equal(passphrase, make([]byte, 6)) {
		t.Error("the passphrase was not wiped")
	}
}

// TestPassphraseNotSent: what can't be a passphrase does not leave the process, and neither does one without a daemon.
func TestPassphraseNotSent(t *testing.T) {
	for _, n := range []int{0, MaxPassphrase + 1} {
		_, err := New("/nowhere").RootPassphrase(t.Context(), make([]byte, n))
		wantCode(t, err, refusal.Usage)
	}
	passphrase := []byte("secret")
	_, err := New("/nowhere").RootPassphrase(t.Context(), passphrase)
	wantCode(t, err, refusal.Unreachable, "/nowhere")
	if passphrase[0] != 0 {
		t.Error("the passphrase was not wiped")
	}
}

// TestPassphraseInterrupted: a call that the daemon does not answer ends with its caller's patience.
func TestPassphraseInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	socket, _ := asks(t, RouteRootPassphrase, func(*asked) (any, error) {
		cancel()
		<-t.Context().Done() // ended before the server is closed
		return nil, nil
	})
	_, err := New(socket).RootPassphrase(ctx, []byte("secret"))
	wantCode(t, err, refusal.Failed, "interrupted")
}

// TestAskerMeetsHostileClients: what is not as it should be is refused, no length makes room, and what came too early is
// wiped where the HTTP server has put it.
func TestAskerMeetsHostileClients(t *testing.T) {
	const head = "POST /v1/root/unlock/passphrase HTTP/1.1\r\nHost: d\r\n"
	const upgrade = "Connection: Upgrade\r\nUpgrade: nbdcrypt-passphrase\r\n"
	length := func(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }
	for name, c := range map[string]struct {
		sends, then string
		hangUp      bool
		says        string
		room        int
	}{
		"sends early":     {sends: head + upgrade + "\r\n" + length(6) + "secret", says: "before they were asked for"},
		"no upgrade":      {sends: head + "\r\n", says: "needs the header"},
		"other upgrade":   {sends: head + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", says: "needs the header"},
		"body":            {sends: head + upgrade + "Content-Length: 6\r\n\r\nsecret", says: "no body"},
		"chunked body":    {sends: head + upgrade + "Transfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n", says: "no body"},
		"empty":           {sends: head + upgrade + "\r\n", then: length(0), says: "0 bytes"},
		"one too many":    {sends: head + upgrade + "\r\n", then: length(MaxPassphrase + 1), says: "1025 bytes"},
		"huge":            {sends: head + upgrade + "\r\n", then: length(1<<32 - 1), says: "4294967295 bytes"},
		"hangs up":        {sends: head + upgrade + "\r\n", then: length(6) + "sec", hangUp: true, says: "did not arrive whole", room: 6},
		"hangs up sooner": {sends: head + upgrade + "\r\n", then: length(6)[:3], hangUp: true, says: "did not arrive whole"},
		"sends nothing":   {sends: head + upgrade + "\r\n", says: `i/o timeout","hint"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket, got := asks(t, RouteRootPassphrase, func(*asked) (any, error) { return RootState{}, nil })
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.sends); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(conn)
			answer, err := http.ReadResponse(in, nil)
			if err == nil && answer.StatusCode == http.StatusSwitchingProtocols {
				_, _ = io.WriteString(conn, c.then)
				if c.hangUp {
					_ = conn.(*net.UnixConn).CloseWrite()
				}
				answer, err = http.ReadResponse(in, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode < 400 || !strings.Contains(string(body), c.says) {
				t.Errorf("%d %s, %v", answer.StatusCode, body, err)
			}
			if g := <-got; g.room != c.room {
				t.Errorf("room was made for %d bytes", g.room)
			}
		})
	}
}
