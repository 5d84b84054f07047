package daemon

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// TestAttachedAt: an attachment says at which device and directory it is; root alone names a device, and nobody anything else.
func TestAttachedAt(t *testing.T) {
	d := start(t)
	route := func(pattern string) string { return strings.Replace(pattern, "{disk}", "at", 1) }
	if status, body := d.call(t, control.RouteDiskCreate, nbd.Peer{}, `{"name":"at","size":1048576}`); status != http.StatusOK {
		t.Fatal(body)
	}
	if _, body := d.call(t, control.RouteRoleGrant, nbd.Peer{}, `{"user":"12345","role":"user"}`); strings.Contains(body, "error") {
		t.Fatal(body)
	}
	for _, c := range []struct {
		uid  uint32
		ask  string
		code refusal.Code
	}{
		{12345, `{"device":"/dev/nbd0"}`, refusal.Denied},
		{0, `{"device":"/dev/nbd"}`, refusal.Usage},
		{0, `{"device":"/dev/sda"}`, refusal.Usage},
		{0, `{"device":"/dev/nbd0p1"}`, refusal.Usage},
		{0, `{"mount":"here"}`, refusal.Usage},
		{0, `{"mount":"/a/../b"}`, refusal.Usage},
		{0, `{"mount":"/` + strings.Repeat("a", 4096) + `"}`, refusal.Usage},
		{12345, `{"mount":"/home/me/disk"}`, refusal.OK},
		{0, `{"device":"/dev/nbd12","mount":"/srv/at"}`, refusal.OK},
	} {
		_, body := d.call(t, route(control.RouteAttach), nbd.Peer{UID: c.uid}, c.ask)
		var got struct {
			control.Attached
			Error control.Error
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Error.Code != int(c.code) {
			t.Errorf("%d %.60s: %s %v", c.uid, c.ask, body, err)
		}
		if c.code != refusal.OK {
			continue
		}
		var disk control.Disk
		_, shown := d.call(t, route(control.RouteDiskShow), nbd.Peer{}, "")
		if err := json.Unmarshal([]byte(shown), &disk); err != nil || len(disk.Attachments) != 1 {
			t.Fatal(shown, err)
		}
		var asked control.Attach
		_ = json.Unmarshal([]byte(c.ask), &asked)
		at := disk.Attachments[0]
		for _, is := range []struct {
			device *string
			mount  string
		}{{at.Device, at.Mount}, {got.Device, got.Mount}} {
			if is.mount != asked.Mount || (is.device == nil) != (asked.Device == "") || is.device != nil && *is.device != asked.Device {
				t.Errorf("%s is at %v %q", c.ask, is.device, is.mount)
			}
		}
		if status, body := d.call(t, route(control.RouteDetach), nbd.Peer{}, ""); status != http.StatusOK {
			t.Fatal(body)
		}
	}
}
