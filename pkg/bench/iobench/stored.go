package iobench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
)

// What the project wants with a full catalog.
const (
	lookLimit   = time.Second
	attachLimit = 10 * time.Millisecond // and two syncs
)

const (
	// looks is how often what takes up to a second is timed.
	looks = 5
	// keysOfProject is how many keys a project may have, with its default key.
	keysOfProject = 100
	// few is how many disks are under the key that has few.
	few    = 10
	fewKey = "few"
)

// Fill says what to fill a state directory with: projects with keys, disks in the project default under its default key, and a few more
// there under the key FewKey.
type Fill struct {
	State, RootKey, Region string
	Projects, Keys         int
	Disks, Few             int
	FewKey                 string
	Size                   int64
}

// Stored is a daemon whose catalog is full, on the real program: from its start to its one line, and commands from their start to their end.
type Stored struct {
	Disks    int `json:"disks"`
	Keys     int `json:"keys"`
	Projects int `json:"projects"`
	// Start is that of a daemon that was stopped, Restart of one that was killed.
	Start    Delay `json:"start"`
	Restart  Delay `json:"restart"`
	List     Delay `json:"list"`
	ListJSON Delay `json:"list_json"`
	UsesMany Delay `json:"uses_many"` // of the key that nearly all disks are under
	UsesFew  Delay `json:"uses_few"`
	Sync     Delay `json:"sync"`
	Attach   Delay `json:"attach"`
}

// stored measures what a daemon does with many disks and keys in its catalog. None of the disks but one has files.
func stored(ctx context.Context, o ScaleOptions, at *site, step func()) (r Stored, err error) {
	r = Stored{Disks: o.StoredDisks, Keys: o.StoredKeys, Projects: (o.StoredKeys + keysOfProject - 1) / keysOfProject}
	s, err := startOurs(ctx, at)
	if err != nil {
		return r, err
	}
	server := s.(*ours)
	defer func() {
		ctx, cancel := after(ctx)
		defer cancel()
		server.close(ctx)
	}()
	encrypted := true
	if _, err := server.client.DiskCreate(ctx, control.DiskCreate{Name: probe, Size: o.Size, Encrypted: &encrypted}); err != nil {
		return r, err
	}
	if err := server.stop(ctx); err != nil {
		return r, err
	}
	err = o.Fill(ctx, Fill{State: server.state(), RootKey: server.rootKey(), Region: region, Projects: r.Projects,
		Keys: min(keysOfProject, r.Keys), Disks: r.Disks, Few: few, FewKey: fewKey, Size: o.Size})
	if err != nil {
		return r, err
	}
	step()
	return r, r.measure(ctx, server, at, step)
}

func (r *Stored) measure(ctx context.Context, server *ours, at *site, step func()) (err error) {
	if r.Restart, err = server.starts(ctx, step, server.kill); err != nil {
		return err
	}
	if r.Start, err = server.starts(ctx, step, server.stop); err != nil {
		return err
	}
	for _, c := range []struct {
		into *Delay
		args []string
	}{
		{&r.List, []string{"disk", "list"}}, {&r.ListJSON, []string{"disk", "list", "--json"}},
		{&r.UsesMany, []string{"key", "uses", "evs/default"}}, {&r.UsesFew, []string{"key", "uses", fewKey}},
	} {
		var times []float64
		for range looks {
			took, err := timed(func() error { return server.command(ctx, c.args...) })
			if err != nil {
				return err
			}
			times = append(times, took)
			step()
		}
		*c.into = newDelay(times, lookLimit.Seconds())
	}
	c := &crowd{ours: server, at: at, o: ScaleOptions{Progress: func(int, int) {}}}
	var times callTimes
	if err := errors.Join(c.calls(ctx, nil, warmUp), c.calls(ctx, &times, calls)); err != nil {
		return err
	}
	r.Sync = newDelay(times.syncs, 0)
	r.Attach = newDelay(times.attaches, attachLimit.Seconds()+r.Sync.Median)
	return nil
}

// starts times some starts, each after the end that the one before was given. The daemon runs when it returns, as does not when it is called.
func (o *ours) starts(ctx context.Context, step func(), end func(context.Context) error) (Delay, error) {
	var times []float64
	for range looks {
		if len(times) > 0 || o.running() {
			if err := end(ctx); err != nil {
				return Delay{}, err
			}
		}
		took, err := timed(func() error { return o.launch(ctx) })
		if err != nil {
			return Delay{}, err
		}
		times = append(times, took)
		step()
	}
	return newDelay(times, lookLimit.Seconds()), nil
}

// command runs a command of this program to its end. What it prints is taken and thrown away.
func (o *ours) command(ctx context.Context, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := process.Quiet(exec.CommandContext(ctx, self, append([]string{"--run", o.run}, args...)...))
	said := new(tail)
	cmd.Stdout, cmd.Stderr = io.Discard, said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, said.last())
	}
	return nil
}
