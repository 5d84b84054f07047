//go:build integration

package integration

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// Four jobs of fio, each with a connection of its own, write blocks of many sizes and check them as they go and at the end; all is
// there after the next attach.
func TestFioVerifiesMixedSizes(t *testing.T) {
	eachDisk(t, "64M", func(t *testing.T, d *daemon, name, uri string) {
		sizes := map[string]string{"512": "512/10:3k/25:4k/25:11k/20:64k/20", "4096": "4k/30:12k/25:20k/25:64k/20"}[sector(name)]
		job := []string{"--rw=randwrite", "--bssplit=" + sizes, "--blockalign=" + sector(name), "--size=16m", "--numjobs=4",
			"--offset_increment=16m", "--verify=crc32c", "--verify_fatal=1", "--fsync=100"}
		fio(t, uri, append(job, "--verify_backlog=64")...)
		d.do("detach", name)
		d.attach(name)
		fio(t, uri, append(job, "--verify_only")...)
	})
}

// Writes and zeros at any byte, of any length, by QEMU's block driver; at the end libnbd reads what a model in memory holds.
func TestQemuIOAtAnyByte(t *testing.T) {
	const size = 8 << 20
	eachDisk(t, "8M", func(t *testing.T, d *daemon, name, uri string) {
		rng := rand.New(rand.NewChaCha8(sha256.Sum256([]byte(name))))
		model, args := make([]byte, size), []string{"-f", "raw"}
		for i := range 200 {
			// Four at a time are in flight, each in its own quarter.
			at := rng.IntN(size / 4)
			n := min(1+rng.IntN(100_000), size/4-at)
			at += i % 4 * size / 4
			pattern := byte(rng.IntN(256))
			command := fmt.Sprintf("aio_write -P %d %d %d", pattern, at, n)
			if i%5 == 4 {
				pattern = 0
				command = fmt.Sprintf("aio_write -z -u %d %d", at, n)
			}
			args = append(args, "-c", command)
			if i%4 == 3 {
				args = append(args, "-c", "aio_flush")
			}
			for j := range n {
				model[at+j] = pattern
			}
		}
		out := tool(t, "qemu-io", append(args, "-c", "aio_flush", "-c", "flush", uri)...)
		if strings.Contains(out, "failed") || strings.Contains(out, "error") {
			t.Errorf("qemu-io:\n%s", out)
		}
		copied := filepath.Join(t.TempDir(), "copy")
		tool(t, "nbdcopy", "--connections=8", uri, copied)
		if string(readFile(t, copied)) != string(model) {
			t.Error("what is read is not what was written")
		}
	})
}
