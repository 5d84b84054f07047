//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

// tmpfs mounts a small file system as the pool of a daemon that has not started.
func (d *daemon) tmpfs(size string) {
	d.t.Helper()
	check(d.t, os.Mkdir(d.pool, 0o700))
	tool(d.t, "mount", "-t", "tmpfs", "-o", "mode=700,size="+size, "nbdcrypt-test", d.pool)
	d.t.Cleanup(func() {
		d.kill()
		check(d.t, syscall.Unmount(d.pool, 0))
	})
}

// fill writes chunks one after the other until there is no space, and returns where it stopped.
func fill(t *testing.T, c *nbdclient.Client, chunk []byte, at int64) int64 {
	t.Helper()
	for ; at+int64(len(chunk)) <= c.Size(); at += int64(len(chunk)) {
		_, err := c.WriteAt(chunk, at)
		if errors.Is(err, syscall.ENOSPC) {
			return at
		}
		check(t, err)
	}
	t.Fatal("the pool never became full")
	return 0
}

// A full pool is ENOSPC to the client and nothing worse: what was written stays, and once there is room writing goes on.
func TestPoolFull(t *testing.T) {
	t.Parallel()
	for _, kind := range disks {
		t.Run(kind.name, func(t *testing.T) {
			d := newDaemon(t)
			d.tmpfs("32m")
			d.start()
			d.do("grant", "create")
			d.create("ballast", "12M", "--plain")
			write(t, dial(t, d.attach("ballast")), noise("ballast", 12<<20), 0)
			d.create("vol", "256M", kind.flags...)
			c := dial(t, d.attach("vol"))
			chunk := noise("chunk", 300<<10)
			sofar := func(end int64) {
				t.Helper()
				for at := int64(0); at < end; at += int64(len(chunk)) {
					expect(t, c, chunk, at)
				}
			}

			end := fill(t, c, chunk, 0)
			sofar(end)
			check(t, c.Flush())
			// What needs no more space goes on.
			write(t, c, chunk, 0)

			d.do("detach", "ballast")
			d.do("disk", "delete", "ballast", "--yes")
			further := fill(t, c, chunk, end)
			if further < end+8<<20 {
				t.Errorf("12 MiB were given back, and %d bytes could be written", further-end)
			}
			sofar(further)
			tool(t, "mount", "-o", "remount,size=96m", d.pool)
			for range 100 {
				write(t, c, chunk, further)
				further += int64(len(chunk))
			}
			check(t, c.Flush())
			d.do("detach", "vol")
			d.stop()
			d.start()
			c = dial(t, d.attach("vol"))
			sofar(further)
			d.checkClean()
		})
	}
}

// Where the state directory is full, commands are refused and say so, and an attached disk goes on; with room again all is as
// it was.
func TestStateFull(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	check(t, os.Mkdir(d.state, 0o700))
	tool(t, "mount", "-t", "tmpfs", "-o", "mode=700,size=64m", "nbdcrypt-test", d.state)
	t.Cleanup(func() {
		d.kill()
		check(t, syscall.Unmount(d.state, 0))
	})
	d.start()
	d.do("grant", "create")
	d.create("vol", "8M", "--encrypted")
	uri := d.attach("vol")
	c := dial(t, uri)
	write(t, c, noise("vol", 1<<20), 0)

	ballast := d.state + "/ballast"
	tool(t, "sh", "-c", "head -c 100M /dev/zero >"+ballast+" || true")
	refused := 0
	for i := range 50 {
		if r := execute(t, d.command("disk", "create", fmt.Sprint("disk", i), "--size=4M", "--encrypted")); r.code != 0 {
			refused++
			if !strings.Contains(r.stderr, "space") {
				t.Errorf("the refusal does not say that there is no space: %s", r.stderr)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	write(t, c, noise("more", 1<<20), 2<<20)
	check(t, c.Flush())

	check(t, os.Remove(ballast))
	d.create("after", "4M", "--encrypted")
	expect(t, c, noise("vol", 1<<20), 0)
	d.kill()
	d.start()
	c = dial(t, d.attach("vol"))
	expect(t, c, noise("vol", 1<<20), 0)
	expect(t, c, noise("more", 1<<20), 2<<20)
	d.create("afterwards", "4M", "--encrypted")
	d.checkClean()
}
