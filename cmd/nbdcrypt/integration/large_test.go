//go:build integration

package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// residentLimit is what the daemon may hold in memory.
const residentLimit = 64 << 20

// resident is the daemon's memory, as the kernel counts it.
func (d *daemon) resident() int64 {
	d.t.Helper()
	status := readFile(d.t, fmt.Sprintf("/proc/%d/status", d.pid()))
	found := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(status)
	if found == nil {
		d.t.Fatalf("no VmRSS in %s", status)
	}
	n, err := strconv.ParseInt(string(found[1]), 10, 64)
	check(d.t, err)
	return n << 10
}

// bytesMoved is how many bytes the daemon has read and written in all, whatever they came from (proc_pid_io(5)).
func (d *daemon) bytesMoved() (n int64) {
	d.t.Helper()
	found := regexp.MustCompile(`(?m)^[rw]char: (\d+)$`).FindAllSubmatch(readFile(d.t, fmt.Sprintf("/proc/%d/io", d.pid())), -1)
	if len(found) != 2 {
		d.t.Fatal("the kernel does not count what the daemon moves")
	}
	for _, f := range found {
		m, err := strconv.ParseInt(string(f[1]), 10, 64)
		check(d.t, err)
		n += m
	}
	return n
}

// A disk of 64 TiB on a file system of 64 MiB is made and attached as fast as one of 1 GiB, and takes memory only for what is touched.
// It runs alone, because it measures.
func TestLargeDiskOnASmallFileSystem(t *testing.T) {
	d := newDaemon(t)
	d.tmpfs("64m")
	d.start()
	d.do("grant", "create")
	if rss := d.resident(); rss > residentLimit {
		t.Errorf("idle, the daemon holds %d KiB", rss>>10)
	}
	moved := func(name, size string) int64 {
		before, start := d.bytesMoved(), time.Now()
		d.create(name, size, "--encrypted")
		d.attach(name)
		n := d.bytesMoved() - before
		t.Logf("%s: %v, %d bytes read and written", size, time.Since(start), n)
		return n
	}
	small := moved("small", "1G")
	if large := moved("large", "64T"); large > small+1<<20 {
		t.Errorf("64 TiB took %d bytes of reading and writing, 1 GiB took %d", large, small)
	}
	if rss := d.resident(); rss > residentLimit {
		t.Errorf("attached, the daemon holds %d KiB", rss>>10)
	}

	c := dial(t, d.show("large").Attachments[0].URI)
	if c.Size() != 64<<40 {
		t.Errorf("the size is %d", c.Size())
	}
	const places = 500
	at := func(i int64) int64 { return i * ((64<<40 - 4096) / (places - 1)) }
	for i := range int64(places) {
		write(t, c, noise(fmt.Sprint(i), 4096), at(i))
	}
	check(t, c.Flush())
	rss := d.resident()
	t.Logf("after writing to %d places: %d KiB resident", places, rss>>10)
	if rss > residentLimit {
		t.Errorf("after writing to %d places the daemon holds %d KiB", places, rss>>10)
	}
	d.stop()
	d.start()
	c = dial(t, d.attach("large"))
	for i := range int64(places) {
		expect(t, c, noise(fmt.Sprint(i), 4096), at(i))
	}
	expect(t, c, make([]byte, 1<<20), 33<<40)
	d.checkClean()
}

// A busy daemon stays small, and so does an idle one with many keys and disks.
func TestResident(t *testing.T) {
	d := startDaemon(t)
	for i := range 50 {
		d.do("key", "create", fmt.Sprint("key", i))
		d.create(fmt.Sprint("disk", i), "1G", "--key", fmt.Sprint("key", i))
		d.attach(fmt.Sprint("disk", i))
	}
	rss := d.resident()
	t.Logf("with 50 disks attached: %d KiB resident", rss>>10)
	if rss > residentLimit {
		t.Errorf("with 50 disks attached the daemon holds %d KiB", rss>>10)
	}
	d.stop()
	d.start()
	if rss := d.resident(); rss > residentLimit {
		t.Errorf("idle, with 50 disks, the daemon holds %d KiB", rss>>10)
	}
}
