//go:build integration

package integration

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/integration/faultfs"
	"nbdcrypt/pkg/control"
)

// Reads and writes that the file system does half of are gone on with: what is stored and what is read is whole. Slow storage is that as well.
func TestFaultShortAndSlow(t *testing.T) {
	eachAiling(t, "16M", func(t *testing.T, a *ailing) {
		l := newLoad(a.show(a.disk).SectorSize)
		for _, op := range []faultfs.Op{faultfs.Read, faultfs.Write, faultfs.Sync, faultfs.Allocate} {
			a.fs.Inject(faultfs.Fault{Op: op, Short: true, Wait: sometimesSlow})
		}
		uri := a.show(a.disk).Attachments[0].URI
		write(t, a.c, make([]byte, l.size()), 0)
		wait := l.start(t, uri)
		l.waitForFlushes(t, 4)
		a.do("detach", a.disk)
		wait()
		l.drained()
		l.verify(t, a.attach(a.disk))
	})
}

func sometimesSlow() {
	if rand.N(16) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// Storage that does not answer holds up who waits for it, and nobody else: other disks and other commands go on, and so do reads of the same disk.
func TestFaultStorageThatHangs(t *testing.T) {
	eachAiling(t, "64M", func(t *testing.T, a *ailing) {
		other := a.create("other", "4M", "--encrypted")
		sound := dial(t, a.attach("other"))
		write(t, sound, a.base, 0)

		stuck := make(chan struct{})
		var free sync.Once
		release := func() { free.Do(func() { close(stuck) }) }
		defer release()
		hits := a.fs.Inject(faultfs.Fault{Op: faultfs.Sync, File: a.data, Wait: func() { <-stuck }})
		write(t, a.c, a.base, 1<<20)
		flushed := make(chan error, 1)
		go func() { flushed <- a.c.Flush() }()
		waitFor(t, "the sync does not begin", func() bool { return hits() > 0 })
		wrote, writer := make(chan error, 1), dial(t, a.show(a.disk).Attachments[0].URI)
		go func() { wrote <- second(writer.WriteAt(a.base, 2<<20)) }() // it waits where the file system has it wait for the sync
		expect(t, a.c, a.base, 0)
		expect(t, sound, a.base, 0)
		check(t, sound.Flush())
		a.create("made", "4M", "--encrypted")
		a.attach("made")
		a.do("detach", "made")
		if status := get[control.Status](a.daemon, "status"); status.Attached != 2 {
			t.Errorf("%d disks are attached", status.Attached)
		}
		select {
		case err := <-flushed:
			t.Errorf("the flush was answered before its sync: %v", err)
		default:
		}
		release()
		check(t, errors.Join(<-flushed, <-wrote))
		expect(t, a.c, a.base, 2<<20)
		a.do("detach", other.Name)
		for _, name := range []string{"made", "other"} {
			a.do("disk", "delete", name, "--yes")
		}
	})
}
