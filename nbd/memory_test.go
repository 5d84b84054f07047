//go:build !race

package nbd

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// Giving back what a loan never used takes no memory: a loan is large, and most are for one request of an idle client.
func TestErasingTouchesOnlyWhatWasUsed(t *testing.T) {
	const size = 64 << 20
	b := make([]byte, size) // so much is new from the kernel
	copy(b[size/2:], "secret")
	before := resident(t)
	erase(b[:1])
	if more := resident(t) - before; more > size/4 {
		t.Errorf("it took %d bytes of memory", more)
	}
	if !bytes.Equal(b[size/2:size/2+6], make([]byte, 6)) {
		t.Error("not all was erased")
	}
}

// resident is the second field of statm, in pages (proc_pid_statm(5)).
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int
	if _, err := fmt.Sscan(string(text), &total, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
