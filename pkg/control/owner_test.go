package control

import (
	"net"
	"net/http"
	"os"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// Whoever answered first is the one to answer.
func TestOfOneOwner(t *testing.T) {
	socket := listen(t, map[string]http.HandlerFunc{RouteStatus: func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, Status{PID: 7}) }})
	c := New(socket).In("p").OfOneOwner()
	for range 2 {
		if status, err := c.Status(t.Context(), false); err != nil || status.PID != 7 {
			t.Fatal(status, err)
		}
	}
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	uid := uint32(os.Geteuid())
	if err := (&owner{known: true, uid: uid}).check(nc, socket); err != nil {
		t.Error(err)
	}
	wantCode(t, (&owner{known: true, uid: uid + 1}).check(nc, socket), refusal.Denied, socket, "directory")
}
