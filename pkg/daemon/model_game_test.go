package daemon

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"pgregory.net/rapid"

	"nbdcrypt/pkg/clock"
)

// game is a daemon in a directory of its own, and the model of what it should be.
type game struct {
	rt     *rapid.T
	played map[string]int
	// opening tells that the first moves are played.
	opening bool
	rulebook

	compared int // how often

	dir   string
	life  int    // counts what needs another name each time
	head  uint64 // of the audit log, as far as it is known
	o     Options
	clock *clock.Fake
	d     *Daemon
	api   http.Handler
}

var background = context.Background()

func newGame(rt *rapid.T, played map[string]int) *game {
	dir, err := os.MkdirTemp("/dev/shm", "nbdc") // in memory, where there is some: syncs are not what is tested here
	if err != nil {
		dir, err = os.MkdirTemp("", "nbdc")
	}
	if err != nil {
		rt.Fatal(err)
	}
	g := &game{rt: rt, played: played, dir: dir, clock: clock.NewFake(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))}
	g.o = optionsIn(filepath.Join(dir, "0"))
	g.o.RootKey = filepath.Join(dir, "root.key")
	g.o.Clock = g.clock
	g.clock.Boot("boot")
	return g
}

// begin starts the daemon and plays the first moves, so that there is something to play with.
func (g *game) begin() {
	g.start()
	g.see()
	g.head = g.d.log.Head().Seq
	g.appoint()
	if g.oneIn(8, "an empty store") {
		return
	}
	g.opening = true
	for _, play := range []func(*game){(*game).grantCreate, (*game).keyCreate, (*game).keyCreate, (*game).keyCreate, (*game).keyPrepare, (*game).keyImport,
		(*game).diskCreate, (*game).diskCreate, (*game).diskCreate} {
		play(g)
	}
	g.opening = false
}

func (g *game) start() {
	g.d = newDaemon(g.o)
	if err := g.d.open(background); err != nil {
		g.failf("the daemon does not start: %v", err)
	}
	g.d.attests.Close()                                            // a search of all memory after each detach is not what is tested here
	g.d.pace.now = func() time.Time { return time.Unix(1<<33, 0) } // nobody waits
	g.api = g.d.newAPI().Handler
}

// stop ends the daemon as Run does.
func (g *game) stop() {
	if err := g.d.detachAll(background); err != nil {
		g.failf("stopping: %v", err)
	}
	_ = g.d.jobs.Shutdown(background)
	if err := g.d.recordStop(background); err != nil {
		g.failf("stopping: %v", err)
	}
	if !g.doubted() && !g.clock.Now().Before(g.seen.at) {
		g.see()
	}
	g.head = g.d.log.Head().Seq
	g.d.close()
}

func (g *game) end() {
	if g.d != nil {
		_ = g.d.detachAll(background)
		_ = g.d.jobs.Shutdown(background)
		g.d.close()
	}
	_ = os.RemoveAll(g.dir)
}

// kill leaves what a daemon that was killed leaves: its files as they are while it runs.
func (g *game) kill() {
	g.life++
	from, to := filepath.Dir(g.o.State), filepath.Join(g.dir, fmt.Sprint(g.life))
	if err := copyStill(to, from); err != nil {
		g.failf("copying the files: %v", err)
	}
	head, seen := g.head, g.seen
	g.stop()
	g.head, g.seen = head, seen
	_ = os.RemoveAll(from)
	g.o.State, g.o.Run, g.o.Pool = filepath.Join(to, "state"), filepath.Join(to, "run"), filepath.Join(to, "state/pool")
}

// restart stops the daemon in good order, and starts it again.
func (g *game) restart() {
	g.rt.Log("restart")
	g.stop()
	g.detachedAll()
	g.startAgain()
}

// crash kills the daemon, and starts it again.
func (g *game) crash() {
	if g.oneIn(2, "after an idle time") {
		g.clock.Pass(2 * time.Hour)
		g.tick()
	}
	g.rt.Log("crash")
	g.kill()
	g.detachedAll()
	g.startAgain()
}

// startAgain starts the daemon on what it left, and does what became due meanwhile.
func (g *game) startAgain() {
	g.start()
	g.locked = false // the key file opens it
	g.seesOn()       // which the record of the start is for
	g.recorded(1 + g.look())
}
