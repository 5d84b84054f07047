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
	base.Advance(time.Second)
	if wrote, err := g.KeepLast(t.Context(), "last"); err != nil || !wrote || !g.Mark().Equal(base.Now()) {
		t.Errorf("at the end %v is kept: %v, %v", g.Mark(), wrote, err)
	}
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

// A mark that can't be read says nothing of the time: every clock is doubted until one is accepted.
func TestRuleB3_DamagedMarkDoubtsEveryClock(t *testing.T) {
	s := catalog.Memory()
	for _, bad := range []string{"noon", "", "2026-11-21T23:15:00Z boot", "2026-11-21T23:15:00Z boot x", "2026-11-21T23:15:00Z boot 1 2"} {
		err := s.Update(t.Context(), "bad"+bad, func(txn catalog.Txn) error { return txn.Put("clock/high-water", []byte(bad)) })
		if err != nil {
			t.Fatal(err)
		}
		g := guard(t, s, clock.System{})
		if _, doubted := g.Ahead(); !doubted || g.Damage() == nil || !g.Mark().IsZero() {
			t.Errorf("%q is taken for a mark", bad)
		}
		keep(t, g, "keep"+bad, false)
		if err := g.Accept(t.Context(), "accept"+bad); err != nil {
			t.Fatal(err)
		}
		if _, doubted := g.Ahead(); doubted || g.Damage() != nil {
			t.Errorf("%q: the clock was accepted and is doubted", bad)
		}
	}
}

const day = 24 * time.Hour

// Dates go by the latest time: never by less than was seen, also after a restart.
func TestRuleB3_LatestNeverGoesBack(t *testing.T) {
	s, base := catalog.Memory(), clock.NewFake(time.Unix(1e9, 0))
	g := guard(t, s, base)
	keep(t, g, "first", true)
	start := base.Now()
	base.Advance(30 * time.Minute)
	if !g.Latest().Equal(base.Now()) || !g.Mark().Equal(start) {
		t.Errorf("latest %v, mark %v", g.Latest(), g.Mark())
	}
	base.Advance(-day)
	for range 2 {
		if !g.Latest().Equal(start) {
			t.Errorf("set back, the latest is %v", g.Latest())
		}
		g = guard(t, s, base)
	}
}

// What the machine was up for went by, in the same boot; of the rest 30 days are believed, and then nothing moves the mark but a person.
func TestRuleB3_FarForwardIsDoubted(t *testing.T) {
	for name, c := range map[string]struct {
		up, set time.Duration
		reboot  string
		far     time.Duration // 0 where it is believed
	}{
		"30 days":                       {0, 30 * day, "", 0},
		"30 days and a second":          {0, 30*day + time.Second, "", 30*day + time.Second},
		"300 days of being up":          {300 * day, 0, "", 0},
		"300 days, and 30 by the clock": {300 * day, 30 * day, "", 0},
		"300 days, and 31 by the clock": {300 * day, 31 * day, "", 31 * day},
		"off for 30 days":               {0, 30 * day, "second", 0},
		"off for 31 days":               {0, 31 * day, "second", 31 * day},
	} {
		t.Run(name, func(t *testing.T) {
			s, base := catalog.Memory(), clock.NewFake(time.Unix(1e9, 0))
			base.Boot("first")
			base.Pass(time.Hour)
			g := guard(t, s, base)
			if _, far := g.Ahead(); far {
				t.Error("doubted before anything was seen")
			}
			keep(t, g, "first", true)
			mark := g.Mark()
			base.Pass(c.up)
			if c.reboot != "" {
				base.Boot(c.reboot)
			}
			base.Advance(c.set)
			for i := range 2 {
				if by, far := g.Ahead(); far != (c.far > 0) || far && by != c.far {
					t.Errorf("look %d: ahead by %v, %v", i, by, far)
				}
				g = guard(t, s, base)
			}
			keep(t, g, "again", c.far == 0)
			if moved := !g.Mark().Equal(mark); moved != (c.far == 0) {
				t.Errorf("the mark is %v", g.Mark())
			}
			if err := g.Accept(t.Context(), "accept"); err != nil || !g.Mark().Equal(base.Now()) {
				t.Errorf("accepted, the mark is %v: %v", g.Mark(), err)
			}
			if _, far := guard(t, s, base).Ahead(); far {
				t.Error("accepted, and doubted")
			}
		})
	}
}

// A mark from before the boot was kept is read.
func TestOldMarkIsRead(t *testing.T) {
	s := catalog.Memory()
	err := s.Update(t.Context(), "old", func(txn catalog.Txn) error { return txn.Put("clock/high-water", []byte("2026-11-21T23:15:00Z")) })
	if err != nil {
		t.Fatal(err)
	}
	base := clock.NewFake(time.Date(2026, 12, 25, 0, 0, 0, 0, time.UTC))
	base.Boot("some")
	if by, far := guard(t, s, base).Ahead(); !far || by < 33*day {
		t.Errorf("ahead by %v, %v", by, far)
	}
}

func TestSystemIsUTC(t *testing.T) {
	now := clock.System{}.Now()
	if now.Location() != time.UTC || now != now.Round(0) {
		t.Errorf("%v is not for records", now)
	}
}
