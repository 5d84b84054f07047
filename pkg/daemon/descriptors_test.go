package daemon

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
)

// Where descriptors run out a disk is neither made nor attached, and the refusal says why; a disk that is there is not damaged.
func TestDescriptorsRunOut(t *testing.T) {
	d := start(t)
	const attach = "POST /v1/disks/one/attach"
	if status, body := d.call(t, control.RouteDiskCreate, nbd.Peer{}, `{"name":"one","size":4096}`); status != http.StatusOK {
		t.Fatal(body)
	}
	used, err := usedDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	limitDescriptors(t, uint64(used)+spareDescriptors-1)
	for pattern, body := range map[string]string{control.RouteDiskCreate: `{"name":"two","size":4096}`, attach: "{}"} {
		_, answer := d.call(t, pattern, nbd.Peer{}, body)
		if !strings.Contains(answer, "descriptors are in use") || !strings.Contains(answer, "LimitNOFILE") {
			t.Errorf("%s answers %s", pattern, answer)
		}
	}
	limitDescriptors(t, uint64(used)+spareDescriptors+8)
	if status, body := d.call(t, attach, nbd.Peer{}, "{}"); status != http.StatusOK {
		t.Error(body)
	}
}

// limitDescriptors sets the limit until the test ends.
func limitDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
}

func TestUsedDescriptors(t *testing.T) {
	before, err := usedDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if after, err := usedDescriptors(); err != nil || after != before+2 {
		t.Errorf("%d with two more than %d: %v", after, before, err)
	}
}
