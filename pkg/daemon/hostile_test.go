package daemon

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
)

// hold sends the beginning of a call and keeps the connection open.
func hold(t *testing.T, o Options, begin string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(o.Run, control.SocketControl))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, begin); err != nil {
		t.Fatal(err)
	}
	return c
}

// Somebody who never ends a call, or never reads its answer, does not keep disks from being detached at a stop.
func TestStopDoesNotWaitForSlowCallers(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	c := client(o)
	if _, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: "plain", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), "plain", control.Attach{}); err != nil {
		t.Fatal(err)
	}
	hold(t, o, "")
	hold(t, o, "POST /v1/disks HTTP/1.1\r\nHost: d\r\n")
	for _, call := range []string{"POST /v1/disks", "POST /v1/nothing", "OPTIONS *", "POST /v1//disks"} {
		slow := hold(t, o, call+" HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
		if _, err := slow.Read(make([]byte, 10)); err != nil { // the daemon waits for the body now
			t.Fatal(err)
		}
	}
	before := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(before); took > 15*time.Second {
		t.Errorf("the stop took %v", took)
	}
	run(t, o)
	at, err := c.Attach(t.Context(), "plain", control.Attach{})
	if err != nil || len(at.Warnings) > 0 {
		t.Errorf("the stop did not detach the disk: %v, warnings %q", err, at.Warnings)
	}
}

// A body without an end is refused before anything is done, and the connection with it.
func TestBodyWithoutEnd(t *testing.T) {
	o := options(t)
	run(t, o)
	c := hold(t, o, "POST /v1/disks HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() { // it ends when the daemon closes the connection
		chunk := fmt.Appendf(nil, "1000\r\n%s\r\n", bytes.Repeat([]byte(" "), 0x1000))
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}()
	answer, err := io.ReadAll(c)
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) || !bytes.Contains(answer, []byte("longer than")) {
		t.Errorf("%v: %s", err, answer)
	}
}

// An id that comes again with another body stands for another call.
func TestRequestIDWithAnotherBody(t *testing.T) {
	d := start(t)
	for alias, want := range map[string]int{"one": http.StatusOK, "two": http.StatusOK} {
		status, body := d.callAs(t, "POST /v1/keys", nbd.Peer{}, fmt.Sprintf(`{"alias":%q}`, alias), "same-id")
		if status != want || !bytes.Contains([]byte(body), []byte(alias)) {
			t.Errorf("%s: %d %s", alias, status, body)
		}
	}
}

// One user does not take every connection, and nobody takes root's; who leaves makes room.
func TestGuestsAreCounted(t *testing.T) {
	g := newGuests()
	admitted := map[uint32][]net.Conn{}
	come := func(uid uint32) bool {
		c, _ := net.Pipe()
		ok := g.admit(c, nbd.Peer{UID: uid})
		if ok {
			admitted[uid] = append(admitted[uid], c)
		}
		return ok
	}
	for uid := uint32(1); uid <= 4; uid++ {
		for n := range maxUserCallers {
			if !come(uid) {
				t.Fatalf("user %d has %d connections, and no more are allowed", uid, n)
			}
		}
		if come(uid) {
			t.Errorf("user %d has more than %d connections", uid, maxUserCallers)
		}
	}
	if come(5) || !come(0) {
		t.Error("above the limit another user is admitted, or root is not")
	}
	g.follow(admitted[1][0], http.StateIdle)
	if come(5) {
		t.Error("a connection that goes on makes room")
	}
	for _, left := range [][]net.Conn{admitted[1][:2], admitted[0]} {
		for _, c := range left {
			g.follow(c, http.StateClosed)
			g.follow(c, http.StateClosed)
		}
	}
	if !come(5) || !come(1) || come(1) {
		t.Error("two left, and not just two could come")
	}
}

// A stranger may see that the daemon runs, and not which disks others have.
func TestStatusNamesNoDisksToStrangers(t *testing.T) {
	d := start(t)
	d.warn("disk vault was left attached")
	stranger := nbd.Peer{UID: 65534}
	if status, body := d.call(t, "GET /v1/status", stranger, ""); status != http.StatusOK || bytes.Contains([]byte(body), []byte("vault")) {
		t.Errorf("status: %d %s", status, body)
	}
	if status, body := d.call(t, "GET /v1/status?keys=true", stranger, ""); status != http.StatusForbidden {
		t.Errorf("keys: %d %s", status, body)
	}
	if status, body := d.call(t, "GET /v1/status?keys=true", nbd.Peer{}, ""); status != http.StatusOK ||
		!bytes.Contains([]byte(body), []byte("vault")) || !bytes.Contains([]byte(body), []byte(`"kind":"root"`)) {
		t.Errorf("by root: %d %s", status, body)
	}
}

// What was done while the audit log could not be written is said in the status, and the log says that something is missing.
func TestUnrecordedIsVisible(t *testing.T) {
	d := start(t)
	if err := d.log.Close(); err != nil { // every write to it fails from now on
		t.Fatal(err)
	}
	if status, body := d.call(t, "POST /v1/keys", nbd.Peer{}, `{"alias":"mine"}`); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	_, body := d.call(t, "GET /v1/status", nbd.Peer{}, "")
	if !bytes.Contains([]byte(body), []byte("the audit log could not be written")) {
		t.Errorf("the status says nothing: %s", body)
	}
}

// Taking the rights away asks for a yes where that strands disks, and only there.
func TestGrantRevokeAsksWhereDisksAreStranded(t *testing.T) {
	d := start(t)
	revoke := func(want int) {
		t.Helper()
		if status, body := d.call(t, control.RouteGrantRevoke, nbd.Peer{}, ""); status != want {
			t.Errorf("%d, want %d: %s", status, want, body)
		}
	}
	create := func(pattern, body string) {
		t.Helper()
		if status, said := d.call(t, pattern, nbd.Peer{}, body); status != http.StatusOK {
			t.Fatalf("%d %s", status, said)
		}
	}
	create(control.RouteDiskCreate, `{"name":"plain","size":1048576}`)
	revoke(http.StatusNoContent)
	create(control.RouteGrantCreate, "")
	create(control.RouteDiskCreate, `{"name":"vault","size":1048576,"encrypted":true}`)
	revoke(http.StatusPreconditionRequired)
}
