//go:build integration

package integration

import (
	"fmt"
	"testing"
)

// TestRuleA12_NoKeyIsKnownBefore: what keys will be made of is not in memory before they are made.
func TestRuleA12_NoKeyIsKnownBefore(t *testing.T) {
	t.Parallel()
	h := startHunt(t)
	for i := range 64 {
		h.create(fmt.Sprint("disk", i), "1M", "--encrypted")
		if i%8 == 7 {
			h.memory(fmt.Sprint("before disk ", i+1))
		}
	}
	h.end()
}
