//go:build integration

package nbd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// tool runs a real client and fails the test where the client fails.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	// nbdsh needs the Python that the distribution's libnbd was built for.
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// serveTools serves a memory device of 64 MiB and returns its URI.
func serveTools(t *testing.T) (uri string, dev *nbdtest.Memory) {
	t.Helper()
	dev = nbdtest.NewMemory(64 << 20)
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{Description: "a disk"})))
	return "nbd+unix:///vol?socket=" + h.path, dev
}

func TestToolNbdinfo(t *testing.T) {
	uri, _ := serveTools(t)
	out := tool(t, "nbdinfo", uri)
	for _, want := range []string{"export-size: 67108864", "can_multi_conn: true", "can_flush: true", "can_fua: true",
		"can_trim: true", "can_zero: true", "is_read_only: false", "block_size_minimum: 512", "block_size_preferred: 4096",
		"block_size_maximum: 33554432", "description: a disk"} {
		if !strings.Contains(out, want) {
			t.Errorf("nbdinfo does not say %q:\n%s", want, out)
		}
	}
	if out := tool(t, "nbdinfo", "--list", strings.Replace(uri, "/vol?", "/?", 1)); !strings.Contains(out, `export="vol"`) {
		t.Errorf("nbdinfo --list:\n%s", out)
	}
}

func TestToolNbdcopy(t *testing.T) {
	uri, _ := serveTools(t)
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, pattern(64<<20, 7), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", in, uri)
	tool(t, "nbdcopy", "--connections=4", uri, out)
	tool(t, "cmp", in, out)
}

func TestToolNbdsh(t *testing.T) {
	uri, dev := serveTools(t)
	script := `
import os
h.set_strict_mode(0)
data = os.urandom(70001)
h.pwrite(data, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 12345) == data
h.flush()
h.zero(4096, 20000, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 20000) == bytes(4096)
h.trim(4096, 40000)
assert h.pread(4096, 40000) == bytes(4096)
assert h.get_protocol() == "newstyle-fixed"
for call in (lambda: h.pread(4096, 64*1024*1024), lambda: h.pread(512, 0, 0x40)):
    try:
        call()
        raise SystemExit("served")
    except nbd.Error as e:
        assert e.errnum == 22, e
try:
    h.pwrite(bytes(512), 64*1024*1024)
    raise SystemExit("served")
except nbd.Error as e:
    assert e.errnum == 28, e
h.shutdown()
`
	tool(t, "nbdsh", "-u", uri, "-c", script)
	if dev.Syncs() == 0 {
		t.Error("flush reached no device")
	}
}

func TestToolQemu(t *testing.T) {
	uri, _ := serveTools(t)
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1000 70000", "-c", "read -P 0x5a 1000 70000",
		"-c", "write -z 4096 8192", "-c", "read -P 0 4096 8192", "-c", "discard 65536 65536", "-c", "flush", uri)
	out := tool(t, "qemu-img", "info", "-f", "raw", uri)
	if !strings.Contains(out, "64 MiB (67108864 bytes)") {
		t.Errorf("qemu-img info:\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "out.raw")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, file)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, file)
}

func TestToolFio(t *testing.T) {
	uri, _ := serveTools(t)
	tool(t, "fio", "--name=verify", "--directory="+t.TempDir(), "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=512-64k",
		"--blockalign=512", "--iodepth=32", "--numjobs=4", "--size=16m", "--offset_increment=16m", "--verify=crc32c",
		"--verify_fatal=1", "--group_reporting")
}
