package clock_test

import (
	"testing"
	"time"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
)

func guard(t *testing.T, s catalog.Store, base clock.Clock) *clock.Guard {
	t.Helper()
	g, err := clock.NewGuard(t.Context(), s, base)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func keep(t *testing.T, g *clock.Guard, request string, want bool) {
	t.Helper()
	if wrote, err := g.Keep(t.Context(), request); err != nil || wrote != want {
		t.Errorf("%s: Keep = %v, %v, want %v", request, wrote, err, want)
	}
}

// The mark outlives the process, so that a clock which was set back while the daemon was down is noticed.
func TestRuleB3_ClockSetBackIsNoticed(t *testing.T) {
	s, base := catalog.Memory(), clock.NewFake(time.Unix(1e9, 0))
	g := guard(t, s, base)
	keep(t, g, "first", true)
	base.Advance(time.Hour - time.Second)
	keep(t, g, "too early", false)
	base.Advance(time.Second)
	keep(t, g, "an hour", true)
	if d, behind := g.Behind(); behind || d != 0 {
		t.Errorf("a clock that goes on is behind by %v", d)
	}
	base.Advance(-24 * time.Hour)
	g = guard(t, s, base)
	if d, behind := g.Behind(); !behind || d != 24*time.Hour {
		t.Errorf("a clock that was set back a day is behind: %v, %v", behind, d)
	}
	keep(t, g, "set back", false)
	if !g.Now().Equal(base.Now()) {
		t.Error("the guard shows another time than its clock")
	}
}

func TestGuardRefusesDamage(t *testing.T) {
	s := catalog.Memory()
	err := s.Update(t.Context(), "bad", func(txn catalog.Txn) error { return txn.Put("clock/high-water", []byte("noon")) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clock.NewGuard(t.Context(), s, clock.System{}); err == nil {
		t.Error("a mark that is no time is taken")
	}
}

func TestSystemIsUTC(t *testing.T) {
	now := clock.System{}.Now()
	if now.Location() != time.UTC || now != now.Round(0) {
		t.Errorf("%v is not for records", now)
	}
}
