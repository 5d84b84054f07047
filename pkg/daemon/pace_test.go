package daemon

import (
	"context"
	"net/http"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/refusal"
)

// Somebody who is refused again and again waits; others do not, and who has waited may ask again.
func TestPaceOfStrangers(t *testing.T) {
	p := newPace()
	if d := p.delay(7); d > 0 { // nobody has asked yet
		t.Errorf("the first call waits %v", d)
	}
	now := time.Unix(1e9, 0)
	p.now = func() time.Time { return now }
	for n := range paceBurst {
		if d := p.delay(7); d > 0 {
			t.Fatalf("after %d calls the next waits %v", n, d)
		}
		p.charge(7)
	}
	p.charge(7)
	if d := p.delay(7); d != paceEvery {
		t.Errorf("the next waits %v, want %v", d, paceEvery)
	}
	if d := p.delay(8); d > 0 {
		t.Errorf("another user waits %v", d)
	}
	for uid := range uint32(paceUsers + 1) {
		p.charge(uid)
	}
	now = now.Add(time.Hour)
	p.charge(9)
	if len(p.owes) != 1 || p.delay(7) > 0 {
		t.Errorf("after an hour %d users are remembered", len(p.owes))
	}
}

// A call that waits ends with its caller, and with the daemon.
func TestPaceWaitEnds(t *testing.T) {
	p := newPace()
	for range 2 * paceBurst {
		p.charge(7)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.wait(gone, 7); refusal.CodeOf(err) != refusal.Failed {
		t.Errorf("the caller is gone: %v", err)
	}
	p.end()
	if err := p.wait(t.Context(), 7); refusal.CodeOf(err) != refusal.Unreachable {
		t.Errorf("the daemon ends: %v", err)
	}
}

// A stranger's refused calls are counted, and root's are not.
func TestRefusedCallsAreCounted(t *testing.T) {
	d := start(t)
	d.pace.now = func() time.Time { return time.Unix(1e9, 0) }
	for range paceBurst + 1 {
		if status, _ := d.call(t, "GET /v1/disks", nbd.Peer{UID: 65534}, ""); status != http.StatusForbidden {
			t.Fatalf("status %d", status)
		}
		d.call(t, "GET /v1/disks/nothing", nbd.Peer{}, "")
	}
	if d.pace.delay(65534) != paceEvery || d.pace.delay(0) > 0 {
		t.Errorf("the stranger waits %v, root %v", d.pace.delay(65534), d.pace.delay(0))
	}
}
