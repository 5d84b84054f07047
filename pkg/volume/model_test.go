package volume_test

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
	moves = "60"
)

// Random moves are played on disks in memory and on a model that holds the bytes of each disk and point: writes of all kinds, what
// is made of disks and of what was made of them, deletions, restarts, and cuts of the power at any operation of the storage or the
// catalog. After each move what is attached reads as the model says; in the end all does, all can be deleted, and nothing is left.
func TestModelOfDisks(t *testing.T) {
	said := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { said[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": games, "rapid.steps": moves, "rapid.nofailfile": "true"} {
		if was := flag.Lookup(name).Value.String(); !said[name] {
			must(t, flag.Set(name, value))
			t.Cleanup(func() { _ = flag.Set(name, was) })
		}
	}
	played := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, played)
		defer w.end()
		rt.Repeat(map[string]func(*rapid.T){"": w.compare, "move": w.move})
		w.finish()
	})
	t.Logf("moves that were played, and what they met: %v", played)
}

// worldMoves are the moves, and how often each is played beside the others. The plainest are first, as shrinking tends to those.
var worldMoves = []struct {
	often int
	play  func(*world)
}{
	{20, (*world).write},
	{6, (*world).trim},
	{4, (*world).zero},
	{6, (*world).flush},
	{6, (*world).create},
	{10, (*world).attach},
	{4, (*world).detach},
	{3, (*world).extend},
	{10, (*world).snapshot},
	{3, (*world).snapshotUnderWrites},
	{3, (*world).image},
	{7, (*world).clone},
	{3, (*world).lookAtPoint},
	{4, (*world).rollback},
	{5, (*world).deletePoint},
	{3, (*world).rekey},
	{3, (*world).merge},
	{2, (*world).delete},
	{2, (*world).restart},
	{8, (*world).arm},
}

// worldLots has each move as often as it is played.
var worldLots = func() (lots []func(*world)) {
	for _, m := range worldMoves {
		lots = append(lots, slices.Repeat([]func(*world){m.play}, m.often)...)
	}
	return lots
}()

// move plays one move. Where the power has gone meanwhile, all is started again.
func (w *world) move(rt *rapid.T) {
	w.rt = rt
	pick(w, "move", worldLots)(w)
	if w.power.Off() {
		w.recover()
	}
}

// below draws a number that is less than n, each about as often: rapid's own generators prefer small ones.
func (w *world) below(n int, label string) int {
	return int(uint32(evenly.Draw(w.rt, label)) % uint32(n))
}

var evenly = rapid.Custom(func(rt *rapid.T) (n int) {
	for range 10 {
		n *= 2
		if rapid.Bool().Draw(rt, "bit") {
			n++
		}
	}
	return n
})

func (w *world) oneIn(n int, label string) bool { return w.below(n, label) == n-1 }

// pick draws one of the list.
func pick[T any](w *world, label string, list []T) T { return list[w.below(len(list), label)] }
