//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestLayersUnderLoad: what fio writes it finds again, while snapshots are made and deleted and the disk gets another data key; and so it is after the
// next attach.
func TestLayersUnderLoad(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.create("vol", "64M", "--key=mine")
	uri := d.attach("vol")
	fio(t, uri, "--rw=write", "--bs=1m", "--size=64m")
	job := []string{"--bs=4k", "--numjobs=4", "--size=8m", "--offset_increment=16m", "--verify=crc32c", "--verify_fatal=1"}
	load := exec.Command("fio", fioArgs(t, uri, append(job, "--rw=randrw", "--time_based", "--runtime=300", "--verify_backlog=256")...)...)
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	check(t, load.Start())
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	waitFor(t, "fio does not connect", func() bool { return d.show("vol").Attachments[0].Clients >= 4 })
	for _, args := range [][]string{
		{"snapshot", "create", "vol", "a"}, {"snapshot", "create", "vol", "b"}, {"snapshot", "create", "vol", "c"}, {"snapshot", "delete", "b", "--yes"},
		{"disk", "rekey", "vol"}, {"snapshot", "create", "vol", "d"}, {"snapshot", "delete", "a", "--yes"}, {"snapshot", "delete", "d", "--yes"},
	} {
		d.do(args...)
	}
	d.do("disk", "create", "clone", "--from-snapshot=c", "--full")
	select {
	case err := <-ended:
		t.Fatalf("the load ended before the last of it: %v\n%s", err, said.String())
	default:
	}
	check(t, load.Process.Signal(os.Interrupt))
	if <-ended; !strings.Contains(said.String(), "err= 0") || strings.Contains(said.String(), "verify:") {
		t.Errorf("the load failed:\n%s", said.String())
	}
	fio(t, uri, append(job, "--rw=randwrite")...)
	d.do("detach", "vol")
	fio(t, d.attach("vol"), append(job, "--rw=randwrite", "--verify_only")...)
	d.aloneSoon("clone")
	d.do("detach", "vol")
	d.checkClean()
}

// TestLayersKilled: after kill -9 at twenty random moments, within snapshots, their deletion, clones and re-keys under load, every byte that was answered is
// there, and what a snapshot held in the beginning it still holds.
func TestLayersKilled(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.create("vol", "16M", "--key=mine")
	l := newLoad(512)
	uri := d.attach("vol")
	write(t, dial(t, uri), noise("kept", 1<<20), 8<<20)
	d.do("snapshot", "create", "vol", "kept")
	rng := rand.New(rand.NewPCG(20, 7))
	for round := range 20 {
		wait := l.start(t, uri)
		l.waitForFlushes(t, 2)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.layerCommands(round)
		}()
		time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond)))) // anywhere
		d.kill()
		<-ended
		wait()
		l.drained()
		d.start()
		uri = d.attachWhole("vol")
		l.verify(t, uri)
	}
	d.do("disk", "create", "clone", "--from-snapshot=kept")
	d.holds("clone", noise("kept", 1<<20), 8<<20)
	d.do("detach", "vol")
	for _, disk := range d.diskNames() {
		d.do("disk", "delete", disk, "--yes")
	}
	d.stop()
	d.start()
	d.checkClean()
	d.leavesLayerFiles(0)
}

// layerCommands runs commands until one is cut off. Some are refused because of what an earlier round has left.
func (d *daemon) layerCommands(round int) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("s-%d-%d", round, i)
		for _, args := range [][]string{
			{"snapshot", "create", "vol", name}, {"disk", "create", name, "--from-snapshot=" + name}, {"snapshot", "delete", name, "--yes"},
			{"disk", "rekey", "vol"}, {"disk", "delete", name, "--yes"},
		} {
			cmd := d.command(args...)
			if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() == 7 || cmd.ProcessState.ExitCode() == 1 {
				return
			}
		}
	}
}

// TestRuleC15_KilledWhileRekeying: a re-key that is killed at twenty random moments ends in the end; the disk holds what it held, its old key opens nothing any
// more, and its snapshot stays what it was.
func TestRuleC15_KilledWhileRekeying(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	d := layered(t)
	d.create("vol", fmt.Sprint(size), "--key=mine")
	held := noise("rekeyed", size)
	copy(held[5<<20:], marker)
	c := dial(t, d.attach("vol"))
	for at := 0; at < size; at += 4 << 20 {
		write(t, c, held[at:at+4<<20], int64(at))
	}
	check(t, c.Flush())
	d.do("detach", "vol")
	old, bottom := d.dek("vol"), d.show("vol").Layers[0].Segments[0]
	rng := rand.New(rand.NewPCG(15, 15))
	for round := range 20 {
		if round%2 == 1 {
			d.attach("vol")
		}
		cmd := d.command("disk", "rekey", "vol")
		check(t, cmd.Start())
		time.Sleep(time.Duration(rng.Int64N(int64(150 * time.Millisecond)))) // anywhere
		d.kill()
		_ = cmd.Wait() // with the daemon, or done before
		d.start()
		if round%5 == 4 {
			d.holds("vol", held, 0)
		}
	}
	d.do("disk", "rekey", "vol")
	d.holds("vol", held, 0)
	if bytes.Equal(d.dek("vol"), old) {
		t.Error("the key is not another one")
	}
	waitFor(t, "the old layer is there", func() bool { return !exists(bottom) })
	d.noMarker("re-keyed")
	d.checkClean()
	d.leavesLayerFiles(2) // of one disk with one layer
}

// layerFiles are all files of layers.
func (d *daemon) layerFiles() []string {
	d.t.Helper()
	list, err := filepath.Glob(d.pool + "/*/*")
	check(d.t, err)
	return list
}

// leavesLayerFiles waits until so many files of layers are left: the daemon removes what a merge or a half-made layer has left in its
// own time.
func (d *daemon) leavesLayerFiles(n int) {
	d.t.Helper()
	waitFor(d.t, fmt.Sprintf("not %d files of layers in %s", n, d.pool), func() bool { return len(d.layerFiles()) == n })
}

func (d *daemon) diskNames() (names []string) {
	d.t.Helper()
	for _, disk := range get[[]control.Disk](d, "disk", "list") {
		names = append(names, disk.Name)
	}
	return names
}
