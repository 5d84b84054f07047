//go:build integration

package integration

import (
	"testing"

	"nbdcrypt/pkg/control"
)

// TestRuleA13_LayersThatAreShared: a disk and a clone of its snapshot have layers, and their keys, in common: those stay while one of the two is
// attached, what was the other's alone goes with its detach, and after both nothing is left, of merges and re-keys neither.
func TestRuleA13_LayersThatAreShared(t *testing.T) {
	t.Parallel()
	h := startHunt(t)
	h.create("vol", "8M", "--encrypted")
	c := dial(t, h.attach("vol"))
	write(t, c, noise("first", 1<<20), 0)
	h.do("snapshot", "create", "vol", "one")
	write(t, c, noise("second", 1<<20), 1<<19)
	h.do("snapshot", "create", "vol", "two")
	h.do("disk", "create", "clone", "--from-snapshot=two")
	other := dial(t, h.attach("clone"))
	h.memory("a disk and its clone attached")
	h.core("a disk and its clone attached", true)

	gone := get[control.Detached](h.daemon, "detach", "vol", "--attest")
	if !searched(gone.Attest) || gone.Attest.Found != 0 {
		t.Errorf("of what was the disk's alone: %+v", gone.Attest)
	}
	expect(t, other, noise("second", 1<<20), 1<<19) // through layers that both have
	h.do("snapshot", "delete", "one", "--yes")
	h.do("disk", "rekey", "clone")
	expect(t, other, noise("second", 1<<20), 1<<19)
	if gone := get[control.Detached](h.daemon, "detach", "clone", "--attest"); !searched(gone.Attest) || gone.Attest.Found != 0 {
		t.Errorf("of what both had, and the clone alone: %+v", gone.Attest)
	}
	for _, k := range h.settled().Keys {
		if k.Kind == "dek" {
			t.Errorf("a key is left: %+v", k)
		}
	}
	h.collect()
	h.memory("both detached")
	h.core("both detached", true)
	h.end()
}
