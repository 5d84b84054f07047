package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
)

// TestDeviceKeepsItsDisk: as long as a device of the kernel is connected to a disk nobody but root detaches it, since the kernel would make
// errors of what it has not written yet; once it is disconnected everybody may who could.
func TestDeviceKeepsItsDisk(t *testing.T) {
	d := start(t)
	socket := filepath.Join(d.o.Run, control.SocketNBD)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := nbd.NewServer(d.exports, slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(t.Context(), l, nbd.Entrance{Peer: nbd.PeerOf}) }()
	t.Cleanup(func() { l.Close() })
	if _, body := d.call(t, control.RouteRoleGrant, nbd.Peer{}, `{"user":"12345","role":"user"}`); strings.Contains(body, "error") {
		t.Fatal(body)
	}
	if status, body := d.call(t, control.RouteDiskCreate, nbd.Peer{}, `{"name":"kept","size":1048576}`); status != http.StatusOK {
		t.Fatal(body)
	}
	route := func(pattern string) string { return strings.Replace(pattern, "{disk}", "kept", 1) }
	if status, body := d.call(t, route(control.RouteAttach), nbd.Peer{}, fmt.Sprintf(`{"device":"/dev/nbd0","allow":["%d"]}`, os.Geteuid())); status != http.StatusOK {
		t.Fatal(body)
	}
	kernel, err := nbdclient.Dial(t.Context(), control.URI("kept", socket))
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Disconnect()
	id := d.attachmentViews(d.attachments()[0])[0].ID
	detach := route(control.RouteDetach) + "?" + control.QueryAttachment + "=" + id
	if status, body := d.call(t, detach, nbd.Peer{UID: 12345}, ""); status == http.StatusOK || !strings.Contains(body, "connected to /dev/nbd0") {
		t.Errorf("detached by another: %d %s", status, body)
	}
	if _, err := kernel.WriteAt([]byte("goes on"), 0); err != nil {
		t.Errorf("after a detach that was refused: %v", err)
	}
	if status, body := d.call(t, detach, nbd.Peer{}, ""); status != http.StatusOK || !strings.Contains(body, `"device":"/dev/nbd0"`) {
		t.Errorf("detached by root: %d %s", status, body)
	}
}
