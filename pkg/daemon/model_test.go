package daemon

import (
	"flag"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// How long the model is played where nothing else is said: this many games, of about so many moves. `-rapid.checks` and
// `-rapid.steps` say otherwise, and `-rapid.seed` plays again what failed.
const (
	games = "40"
	moves = "80"
)

// Random sequences of verbs by several users, writes, restarts, crashes and moves of the clock are played against a real daemon
// and a small model of the rules. After each move the daemon has to be what the model says, and must have answered so; what
// fails is shrunk to the shortest sequence that fails.
func TestModelOfTheRules(t *testing.T) {
	said := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { said[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": games, "rapid.steps": moves, "rapid.nofailfile": "true"} {
		if was := flag.Lookup(name).Value.String(); !said[name] {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = flag.Set(name, was) })
		}
	}
	t.Cleanup(reuseWrappingKey())
	played := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		g := newGame(rt, played)
		defer g.end()
		g.begin()
		rt.Repeat(map[string]func(*rapid.T){"": g.compare, "move": g.move})
	})
	t.Logf("answers by verb and exit code: %v", played)
}

// moveKinds are the moves of the game, and how often each is played beside the others. The plainest are first, as shrinking tends
// to those.
var moveKinds = []struct {
	often int
	play  func(*game)
}{
	{16, (*game).attach},
	{6, (*game).detach},
	{6, (*game).write},
	{6, (*game).diskCreate},
	{3, (*game).keyCreate},
	{5, (*game).keyDisable},
	{7, (*game).keyEnable},
	{7, (*game).keySchedule},
	{5, (*game).keyCancel},
	{8, (*game).timePasses},
	{4, (*game).keyRotate},
	{3, (*game).keyRotation},
	{5, (*game).diskRewrap},
	{3, (*game).keyRewrap},
	{4, (*game).keyPrepare},
	{5, (*game).keyImport},
	{4, (*game).keyDeleteMaterial},
	{3, (*game).keyDelete},
	{3, (*game).keyUpdate},
	{8, (*game).raise},
	{2, (*game).keyUses},
	{1, (*game).keyShow},
	{1, (*game).keyList},
	{1, (*game).diskShow},
	{1, (*game).diskList},
	{2, (*game).diskEscrow},
	{2, (*game).diskDelete},
	{4, (*game).grantCreate},
	{1, (*game).grantRevoke},
	{4, (*game).keyGrant},
	{1, (*game).keyGrants},
	{2, (*game).keyGrantEnd},
	{2, (*game).roleGrant},
	{1, (*game).roleRevoke},
	{2, (*game).projectSet},
	{1, (*game).rootLock},
	{3, (*game).rootUnlock},
	{1, (*game).restart},
	{2, (*game).crash},
	{2, (*game).down},
	{3, (*game).clockSet},
	{2, (*game).clockAccept},
	{1, (*game).clockShow},
}

// movesByLot has each move as often as it is played.
var movesByLot = func() (lots []func(*game)) {
	for _, kind := range moveKinds {
		lots = append(lots, slices.Repeat([]func(*game){kind.play}, kind.often)...)
	}
	return lots
}()

// move plays one move.
func (g *game) move(rt *rapid.T) {
	g.rt = rt
	among(g, "move", movesByLot...)(g)
}

const evenBits = 10

// evenly draws numbers of evenBits bits, each as often: rapid's own generators prefer small ones.
var evenly = rapid.Custom(func(rt *rapid.T) (n int) {
	for range evenBits {
		n *= 2
		if rapid.Bool().Draw(rt, "bit") {
			n++
		}
	}
	return n
})

// oneIn draws true about once in n times.
func (g *game) oneIn(n int, label string) bool {
	return evenly.Draw(g.rt, label)*n>>evenBits == n-1
}

// among draws one of the list.
func among[T any](g *game, label string, list ...T) T {
	return list[evenly.Draw(g.rt, label)*len(list)>>evenBits]
}
