package daemon

import (
	"fmt"
	"time"

	"nbdcrypt/pkg/control"
)

const day = 24 * time.Hour

// seen is the latest time that counts for sure, and what the machine's uptime was then (rule B3).
type seen struct {
	at   time.Time
	boot string
	up   time.Duration
}

// latest is the time that dates are held against: a clock that was set back undeletes nothing.
func (g *game) latest() time.Time {
	if now := g.clock.Now(); now.After(g.seen.at) {
		return now
	}
	return g.seen.at
}

// doubted tells whether the clock shows more than 30 days more than is known to have gone by: then nothing is destroyed unasked.
func (g *game) doubted() bool { return !g.seen.at.IsZero() && g.ahead() > 30*day }

func (g *game) ahead() time.Duration {
	known := g.seen.at
	if boot, up := g.clock.Uptime(); boot == g.seen.boot {
		known = known.Add(up - g.seen.up)
	}
	return g.clock.Now().Sub(known)
}

// look is what the daemon does every few seconds, and at its start. It returns how many records that leaves in the audit log.
func (g *game) look() (records int) {
	if g.doubted() {
		return 0
	}
	if g.seesOn() {
		records++
	}
	for _, k := range g.live() {
		records += k.comesDue(g.latest(), g.locked)
	}
	return records
}

// comesDue is what becomes of a key by then: rotation, the expiry of imported material, destruction.
func (k *modelKey) comesDue(now time.Time, locked bool) (records int) {
	if k.state == enabled && k.rotation.days > 0 && !locked && !k.rotation.from.AddDate(0, 0, k.rotation.days).After(now) {
		k.rotate(now)
		records++
	}
	destroyed := k.state == pendingDeletion && !k.deletion.After(now)
	if k.versions > 0 && k.expires != nil && !k.expires.After(now) && !(destroyed && k.deletion.Before(*k.expires)) {
		k.loseMaterial()
		records++
	}
	if destroyed {
		k.destroy()
		records++
	}
	return records
}

// seesOn moves the time that was seen on, once it is an hour behind.
func (g *game) seesOn() bool {
	if g.doubted() || g.clock.Now().Before(g.seen.at.Add(time.Hour)) {
		return false
	}
	g.see()
	return true
}

func (g *game) see() {
	boot, up := g.clock.Uptime()
	g.seen = seen{g.clock.Now(), boot, up}
}

func (k *modelKey) destroy() { k.gone, k.state, k.deletion, k.grants = true, "", nil, nil }

// tick has the daemon look at what is due.
func (g *game) tick() {
	g.d.lookAtDue(background)
	g.recorded(g.look())
}

// timePasses lets time go by while the daemon runs.
func (g *game) timePasses() {
	d := among(g, "time", time.Hour, day, 7*day, 8*day, 8*day, 25*day, 40*day, 400*day)
	g.clock.Pass(d)
	g.rt.Logf("%v go by, and it is %v", d, g.clock.Now())
	if !g.oneIn(4, "before the daemon looks") {
		g.tick()
	}
}

// clockSet sets the machine's clock.
func (g *game) clockSet() {
	d := among(g, "by", -time.Hour, -day, -100*day, day, 8*day, 29*day, 31*day, 100*day, 2000*day)
	g.clock.Advance(d)
	g.rt.Logf("the clock is set by %v to %v", d, g.clock.Now())
	if !g.oneIn(4, "before the daemon looks") {
		g.tick()
	}
}

// down stops the daemon, for so long, and perhaps the machine too.
func (g *game) down() {
	d := among(g, "time", 0, time.Hour, 8*day, 20*day, 40*day, 500*day)
	if end := among(g, "end", "stop", "stop", "kill"); end == "stop" {
		g.stop()
	} else {
		g.kill()
	}
	g.detachedAll()
	g.clock.Pass(d)
	if g.oneIn(3, "reboot") {
		g.life++
		g.clock.Boot(fmt.Sprint("boot-", g.life))
	}
	g.rt.Logf("down for %v, and it is %v", d, g.clock.Now())
	g.startAgain()
}

func (g *game) clockShow() {
	if answer, done := g.play(ask{who: g.somebody(), route: control.RouteClockShow}, nil); done {
		g.sameClock(decode[control.Clock](g, answer))
	}
}

func (g *game) clockAccept() {
	a, sure := g.perhapsSure(ask{who: g.somebody(), route: control.RouteClockAccept})
	a.uncounted = true
	if answer, done := g.play(a, refuses().when(g.doubted() && !sure, 9)); done {
		g.see()
		g.recorded(1 + g.look())
		g.sameClock(decode[control.Clock](g, answer))
	} else {
		g.recorded(1)
	}
}

func (g *game) sameClock(v control.Clock) {
	state, by := control.ClockRight, time.Duration(0)
	if d := g.seen.at.Sub(g.clock.Now()); d > 0 {
		state, by = control.ClockBehind, d
	}
	if g.doubted() {
		state, by = control.ClockAhead, g.ahead()
	}
	due := 0
	for _, k := range g.live() {
		if g.overdue(k) {
			due++
		}
	}
	if !v.Now.Equal(g.clock.Now()) || v.Seen == nil || !v.Seen.Equal(g.seen.at) || !v.Latest.Equal(g.latest()) || v.State != state || v.By != int64(by/time.Second) || len(v.Due) != due {
		g.failf("the clock is %s, want %s by %v, %d due, and %v seen", mustJSON(v), state, by, due, g.seen.at)
	}
}
