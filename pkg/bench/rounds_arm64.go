//go:build !purego

package bench

import "slices"

//go:noescape
func rounds128(state, key *byte, n int)

func allRegisters() []registers {
	if !slices.Contains(Implementations(), "arm64") {
		return nil
	}
	return []registers{{128, rounds128}}
}
