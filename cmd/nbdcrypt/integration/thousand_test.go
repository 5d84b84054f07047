//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// limitedDaemon starts a daemon of an ordinary user, who may lock that many bytes and not more.
func limitedDaemon(t *testing.T, limit int) *daemon {
	t.Helper()
	d := newDaemon(t)
	home := d.dir + "/home"
	check(t, os.Mkdir(home, 0o755))
	check(t, os.Chown(home, 65534, 65534))
	d.state, d.run, d.pool, d.root = home+"/state", home+"/run", home+"/pool", home+"/key/root.key"
	d.under = []string{"prlimit", fmt.Sprintf("--memlock=%d:%d", limit, limit),
		"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"}
	d.start()
	d.do("grant", "create")
	if s := d.status(); s.KeyMemory.Limit != limit {
		t.Fatalf("status says that the limit is %d: %+v", s.KeyMemory.Limit, s.KeyMemory)
	}
	return d
}

func (d *daemon) status() control.Status {
	d.t.Helper()
	return get[control.Status](d, "status", "--keys")
}

// settled is what status says once no search for the traces of keys is under way, nor a derivation, as the audit log's head takes one.
func (d *daemon) settled() (s control.Status) {
	d.t.Helper()
	waitFor(d.t, "the search for traces of keys does not end", func() bool {
		s = d.status()
		return !slices.ContainsFunc(s.Keys, func(k control.HeldKey) bool {
			return k.Kind == "derived" || k.Kind == "attest" && strings.HasPrefix(k.For, "reading")
		})
	})
	return s
}

// api asks the daemon without a process for each question.
func (d *daemon) api() *control.Client {
	return control.New(filepath.Join(d.run, control.SocketControl))
}

// each calls f for the disks of these numbers, many at once.
func each(t *testing.T, n int, f func(ctx context.Context, i int, name string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range n {
			next <- i
		}
	}()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := range next {
				if err := f(ctx, i, fmt.Sprint("disk", i)); err != nil {
					t.Errorf("disk %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (d *daemon) createMany(n int) {
	d.t.Helper()
	encrypted := true
	each(d.t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().DiskCreate(ctx, control.DiskCreate{Name: name, Size: 1 << 20, Encrypted: &encrypted})
		return err
	})
}

// A thousand disks are attached at once by a user who may lock 8 MiB, the usual limit, and leave nothing behind.
func TestThousandDisks(t *testing.T) {
	t.Parallel()
	const n = 1000
	d := limitedDaemon(t, 8<<20)
	d.createMany(n)
	before := d.settled()
	each(t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Attach(ctx, name, control.Attach{})
		return err
	})
	full := d.settled()
	t.Logf("%d disks attached: %+v", n, full.KeyMemory)
	if full.Attached != n || len(full.Keys) != len(before.Keys)+n {
		t.Errorf("%d disks are attached, with %d keys", full.Attached, len(full.Keys))
	}
	each(t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Detach(ctx, name, false)
		return err
	})
	after := d.settled()
	if !reflect.DeepEqual(after.Keys, before.Keys) {
		t.Errorf("these keys are left: %+v", after.Keys)
	}
	if after.KeyMemory.Used != before.KeyMemory.Used || after.KeyMemory.Keys != before.KeyMemory.Keys {
		t.Errorf("key memory was %+v, and is %+v", before.KeyMemory, after.KeyMemory)
	}
}

// TestKeyMemoryFull: the attach that does not fit any more is refused, and says why; all else goes on.
func TestKeyMemoryFull(t *testing.T) {
	t.Parallel()
	const n = 100
	d := limitedDaemon(t, 256<<10)
	d.createMany(n)
	var fitted []string
	each(t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Attach(ctx, name, control.Attach{})
		refused := new(refusal.Error)
		if errors.As(err, &refused) && refused.Code == refusal.Failed {
			return nil
		}
		return err
	})
	for _, disk := range get[[]control.Disk](d, "disk", "list") {
		if disk.Status == "in-use" {
			fitted = append(fitted, disk.Name)
		}
	}
	if len(fitted) < 10 || len(fitted) == n {
		t.Fatalf("%d of %d disks could be attached", len(fitted), n)
	}
	late := d.create("late", "1M", "--encrypted")
	e := d.refused(1, "attach", "late")
	memory := d.status().KeyMemory
	said := regexp.MustCompile(`(\d+) bytes in keys, .* a limit of (\d+)`).FindStringSubmatch(e.Message)
	if said == nil || said[1] != fmt.Sprint(memory.Used+64) || said[2] != fmt.Sprint(memory.Limit) { // the DEK was there to be expanded
		t.Errorf("the refusal does not say that %d bytes of %d are used: %s", memory.Used, memory.Limit, e.Message)
	}
	if !strings.Contains(e.Hint, "detach") {
		t.Errorf("the refusal does not say what to do: %s", e.Hint)
	}
	if status := d.show("late").Status; status != "available" {
		t.Errorf("the disk that was refused is %s", status)
	}
	c := dial(t, d.show(fitted[0]).Attachments[0].URI)
	write(t, c, noise("full", 1<<19), 0)
	check(t, c.Flush())
	expect(t, c, noise("full", 1<<19), 0)
	if len(d.dek(late.Name)) != 64 {
		t.Error("no escrow while key memory is full")
	}
	d.checkClean()
	d.do("detach", fitted[0])
	d.attach("late")
	d.do("detach", "late")
	expect(t, dial(t, d.attach(fitted[0])), noise("full", 1<<19), 0)
}
