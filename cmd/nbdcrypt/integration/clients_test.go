//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

// disks are the kinds of disk that every client must see alike.
var disks = []struct {
	name  string
	flags []string
}{
	{"plain512", []string{"--plain"}},
	{"plain4096", []string{"--plain", "--sector-size=4096"}},
	{"encrypted512", []string{"--encrypted"}},
	{"encrypted4096", []string{"--encrypted", "--sector-size=4096"}},
}

// eachDisk runs a test on a fresh attached disk of every kind, all on one daemon.
func eachDisk(t *testing.T, size string, test func(t *testing.T, d *daemon, name, uri string)) {
	t.Parallel()
	d := startDaemon(t)
	for _, kind := range disks {
		t.Run(kind.name, func(t *testing.T) {
			d.create(kind.name, size, kind.flags...)
			test(t, d, kind.name, d.attach(kind.name))
		})
	}
	d.stop()
	d.start()
	d.checkClean()
}

func TestClientNbdinfo(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		out := tool(t, "nbdinfo", uri)
		for _, want := range []string{"export-size: 67108864 ", "can_multi_conn: true", "can_flush: true", "can_fua: true", "can_trim: true",
			"can_zero: true", "is_read_only: false", "block_size_minimum: " + sector(name) + "\n", "block_size_preferred: 4096\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("nbdinfo does not say %q:\n%s", want, out)
			}
		}
		if out := tool(t, "nbdinfo", "--list", "nbd+unix:///?socket="+d.run+"/nbd.sock"); !strings.Contains(out, `export="`+name+`"`) {
			t.Errorf("nbdinfo --list does not name %s:\n%s", name, out)
		}
		if out := tool(t, "nbdinfo", "--size", uri); strings.TrimSpace(out) != "67108864" {
			t.Errorf("nbdinfo --size: %s", out)
		}
	})
}

// A disk attached read-only is one for every client.
func TestClientReadOnly(t *testing.T) {
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) {
		d.do("detach", name)
		uri = d.attach(name, "--read-only")
		tool(t, "nbdinfo", "--is", "read-only", uri)
		c := dial(t, uri)
		if _, err := c.WriteAt(make([]byte, 512), 0); err == nil {
			t.Error("a write was taken")
		}
	})
}

func TestClientNbdcopy(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		writeFile(t, in, noise(name, 64<<20))
		tool(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", in, uri)
		d.do("detach", name)
		d.attach(name)
		tool(t, "nbdcopy", "--connections=4", uri, out)
		tool(t, "cmp", in, out)
	})
}

// nbdshScript sends unaligned, pipelined and flagged requests and reads everything back.
const nbdshScript = `
import os
h.set_strict_mode(0)
size = h.get_size()
model = bytearray(size)
def put(data, at, *flags):
    h.pwrite(data, at, *flags)
    model[at:at+len(data)] = data

cookies = []
for i in range(64):
    data = os.urandom(16384)
    at = i * 20001
    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at))
    model[at:at+len(data)] = data
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
put(os.urandom(70001), 3000001, nbd.CMD_FLAG_FUA)
h.trim(100000, 4096 * 3 + 100)
model[4096*3+100:4096*3+100100] = bytes(100000)
h.zero(100000, 777, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
model[777:100777] = bytes(100000)
h.zero(65536, 3000001)
model[3000001:3065537] = bytes(65536)
h.flush()
assert h.pread(size, 0) == model, "what is read is not what was written"

import errno
for want, call in (("EINVAL", lambda: h.pread(4096, size)), ("ENOSPC", lambda: h.pwrite(bytes(512), size)),
                   ("ENOSPC", lambda: h.zero(512, size)), ("EINVAL", lambda: h.trim(512, size))):
    try:
        call()
        raise SystemExit("a request past the end was served")
    except nbd.Error as e:
        assert e.errnum == getattr(errno, want), (want, e)
assert h.pread(512, 3000001 - 512) == model[3000001-512:3000001]
h.shutdown()
`

func TestClientNbdsh(t *testing.T) {
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) {
		tool(t, "nbdsh", "-u", uri, "-c", nbdshScript)
	})
}

// fio runs with libnbd's strict mode, which refuses to send what is not aligned to the disk's sectors; those are aligned to
// nothing else here.
func TestClientFio(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		for _, kind := range []string{"randwrite", "write", "randrw"} {
			fio(t, uri, "--rw="+kind, "--blockalign="+sector(name), "--bsrange="+sector(name)+"-100k", "--size=16m", "--numjobs=4",
				"--offset_increment=16m", "--verify=crc32c", "--verify_fatal=1", "--fsync=64")
		}
	})
}

// fio runs jobs on an export.
func fio(t *testing.T, uri string, args ...string) {
	t.Helper()
	tool(t, "fio", fioArgs(t, uri, args...)...)
}

// fioArgs adds what every run needs; whatever files fio leaves are in a directory that goes away.
func fioArgs(t *testing.T, uri string, args ...string) []string {
	dir := t.TempDir()
	return append(args, "--name=job", "--aux-path="+dir, "--directory="+dir, "--ioengine=nbd", "--uri="+uri, "--iodepth=16", "--group_reporting")
}

// sector is the sector size that the name of a kind of disk ends in.
func sector(name string) string { return strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz") }

func TestClientQemuIO(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		args := []string{"-f", "raw"}
		for _, command := range []string{
			"write -P 0x5a 1000 70000", "read -P 0x5a 1000 70000", "write -P 0xa5 1512 1", "read -P 0xa5 1512 1", "read -P 0x5a 1513 69487",
			"write -z 4096 8192", "read -P 0 4096 8192", "read -P 0x5a 12288 58712", "discard 1M 1M", "read -P 0 1M 1M",
			"aio_write -P 7 2M 1M", "aio_write -P 8 3M 1M", "aio_flush", "read -P 7 2M 1M", "read -P 8 3M 1M", "flush",
		} {
			args = append(args, "-c", command)
		}
		out := tool(t, "qemu-io", append(args, uri)...)
		if strings.Contains(out, "failed") || strings.Contains(out, "error") {
			t.Errorf("qemu-io:\n%s", out)
		}
	})
}

func TestClientQemuImg(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		dir := t.TempDir()
		in, out := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.qcow2")
		writeFile(t, in, append(noise(name, 20<<20), make([]byte, 44<<20)...))
		tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", in, uri)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", in, uri)
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, out)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", in, out)
		if out := tool(t, "qemu-img", "map", "-f", "raw", "--output=json", uri); !strings.Contains(out, `"start": 0,`) {
			t.Errorf("qemu-img map:\n%s", out)
		}
	})
}

// Our own client, many connections of one export: what one wrote, all others read (NBD15 on the real binary).
func TestClientManyConnections(t *testing.T) {
	eachDisk(t, "16M", func(t *testing.T, d *daemon, name, uri string) {
		clients := make([]*nbdclient.Client, 8)
		for i := range clients {
			clients[i] = dial(t, uri)
			write(t, clients[i], noise(fmt.Sprint(name, i), 100_000), int64(i)*1_000_003)
		}
		check(t, clients[0].Flush())
		for i := range clients {
			expect(t, clients[len(clients)-1-i], noise(fmt.Sprint(name, i), 100_000), int64(i)*1_000_003)
		}
	})
}
