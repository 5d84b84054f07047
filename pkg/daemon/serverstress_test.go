package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// TestServersUnderStress: starts that break off anywhere, stops, disks that come and go, snapshots and images, all at once; nothing but refusals comes of it, and in the end all is at rest: no disk
// attached, no key in memory, and every server starts.
func TestServersUnderStress(t *testing.T) {
	d, c := farm(t)
	for i := range 3 {
		must(t, d, control.RouteDiskCreate, fmt.Sprintf(`{"name":"spare%d","size":1048576,"key":"b"}`, i))
	}
	must(t, d, control.RouteServerCreate, `{"name":"db","image":"golden","data":[{"size":1048576}]}`)
	names := []string{"web", "db"}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(i), 9))
			for range 25 {
				stressOnce(t, c, names[dice.IntN(2)], dice)
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		await(t, name+" rests", func() bool {
			if s := showServer(t, c, name); s.Status == control.ServerStopped {
				return true
			}
			_, _ = c.ServerStop(t.Context(), name, control.ServerStop{Force: true}, true)
			return false
		})
	}
	for _, name := range names {
		rests(t, d, c, name)
		r := runs(t, d, c, name)
		_ = r.line.Close()
		rests(t, d, c, name)
	}
	await(t, "nothing is leased", func() bool {
		d.leases.mu.Lock()
		defer d.leases.mu.Unlock()
		return len(d.leases.all)+len(d.leases.disks)+len(d.leases.users)+d.leases.working == 0
	})
	report, err := c.Check(t.Context(), "")
	if err != nil || len(report.Findings) != 0 {
		t.Errorf("%+v, %v", report.Findings, err)
	}
}

// A daemon that stops in the middle of all that stops in good order, and the next one finds all at rest.
func TestDaemonStopsUnderStress(t *testing.T) {
	d, c := farm(t)
	for i := range 3 {
		must(t, d, control.RouteDiskCreate, fmt.Sprintf(`{"name":"spare%d","size":1048576,"key":"b"}`, i))
	}
	for round := range 3 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(uint64(i), uint64(round)))
				for {
					select {
					case <-stop:
						return
					default:
						stressOnce(t, c, "web", dice)
					}
				}
			})
		}
		before := d.recorded(t, "server.ended", "ok")
		await(t, "some runs have ended", func() bool { return d.recorded(t, "server.ended", "ok") > before+5 })
		d.halt(t)
		close(stop)
		wg.Wait()
		d = served(t, d.o)
		rests(t, d, c, "web")
		for _, warning := range d.allWarnings() {
			if strings.Contains(warning, "without detaching") {
				t.Error(warning)
			}
		}
	}
	r := runs(t, d, c, "web")
	_ = r.line.Close()
	rests(t, d, c, "web")
}

func stressOnce(t *testing.T, c *control.Client, name string, dice *rand.Rand) {
	spare := control.ServerDiskChange{Disk: fmt.Sprintf("spare%d", dice.IntN(3))}
	ctx := context.Background()
	var err error
	switch dice.IntN(8) {
	case 0, 1, 2:
		err = stressStart(t, c, name, dice.IntN(5))
	case 3:
		_, err = c.ServerStop(ctx, name, control.ServerStop{Force: dice.IntN(2) == 0}, true)
	case 4, 5:
		_, err = c.ServerAttach(ctx, name, spare)
	case 6:
		_, err = c.ServerDetach(ctx, name, spare, true)
	case 7:
		disk := control.Attach{}
		if _, err = c.Attach(ctx, spare.Disk, disk); err == nil {
			_, err = c.Detach(ctx, spare.Disk, true)
		}
	}
	switch refusal.CodeOf(err) {
	case refusal.OK, refusal.Busy, refusal.NotFound:
	case refusal.Failed, refusal.Unreachable: // a run that ended meanwhile, or a daemon
	default:
		t.Errorf("%v", err)
	}
}

// stressStart starts a server, and breaks off at some point, or has it run.
func stressStart(t *testing.T, c *control.Client, name string, point int) error {
	line, err := c.ServerRun(context.Background(), name, control.ServerRun{Token: aToken})
	if err != nil {
		return err
	}
	r := &runner{t: t, line: line, ended: make(chan struct{})}
	steps := []func() error{
		func() error { return nil },
		func() error { return line.Receive(&r.first) },
		func() error { return line.Send(control.RunReport{Taken: true}) },
		func() error { return line.Send(control.RunReport{Running: &control.RunningServer{PID: 1}}) },
	}
	for i, step := range steps {
		if point == i || step() != nil {
			return line.Close()
		}
	}
	go r.follow()
	return nil
}
