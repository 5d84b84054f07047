package daemon

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/shield"
)

// What status says of the process and of key memory is what is in force.
func TestStatusTellsTheProtection(t *testing.T) {
	d := start(t)
	code, body := d.call(t, control.RouteStatus, nbd.Peer{}, "")
	var s control.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s: %v", code, body, err)
	}
	want, err := shield.Look()
	p := s.Protection
	if err != nil || p.Dumpable || p.Core || p.NoNewPrivs != want.NoNewPrivs || len(p.Signals) != 0 || p.Signals == nil ||
		p.Swap != string(want.Swap.Kind) || p.SwapAreas == nil || p.Hibernation != string(want.Hibernation) {
		t.Errorf("%+v, want %+v, %v", p, want, err)
	}
	u := secret.Stats()
	if m := s.KeyMemory; m.Kind != u.Kind || m.Locked != int(u.Locked) || m.Locked < m.Used || m.Used == 0 {
		t.Errorf("%+v, want %+v", m, u)
	}
}

func TestWeaknessesAreWarnedOf(t *testing.T) {
	good := shield.State{NoNewPrivs: true, Swap: shield.Swap{Kind: shield.SwapNone}}
	swapping, privileged := good, good
	swapping.Swap = shield.Swap{Kind: shield.SwapUnencrypted, Areas: []string{"/dev/sda2", "/swap"}}
	privileged.NoNewPrivs = false
	for _, c := range []struct {
		state shield.State
		want  []string
	}{{good, nil}, {swapping, []string{"/dev/sda2, /swap", "keys never", "MemorySwapMax=0"}}, {privileged, []string{"CGO_ENABLED=0", "NoNewPrivileges"}}} {
		got := weaknesses(c.state)
		if len(got) != min(len(c.want), 1) {
			t.Errorf("%+v: %q", c.state, got)
		}
		for _, part := range c.want {
			if !strings.Contains(strings.Join(got, ""), part) {
				t.Errorf("%+v: %q does not say %q", c.state, got, part)
			}
		}
	}
	for _, kind := range []shield.SwapKind{shield.SwapForbidden, shield.SwapEncrypted} {
		good.Swap.Kind = kind
		if got := weaknesses(good); len(got) > 0 {
			t.Errorf("%s: %q", kind, got)
		}
	}
}

// TestNoDebugEndpoint: Badger brings expvar along, which offers itself on net/http's default handler; ours is another one.
func TestNoDebugEndpoint(t *testing.T) {
	d := start(t)
	for _, path := range []string{"/debug/vars", "/debug/pprof/", "/debug/pprof/heap", "/debug/requests"} {
		w := httptest.NewRecorder()
		d.newAPI().Handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code == http.StatusOK || !strings.Contains(w.Body.String(), "there is no call") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
