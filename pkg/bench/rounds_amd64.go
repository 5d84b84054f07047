//go:build !purego

package bench

import "slices"

//go:noescape
func rounds512(state, key *byte, n int)

//go:noescape
func rounds256(state, key *byte, n int)

//go:noescape
func rounds128(state, key *byte, n int)

// allRegisters are those that implementations of this machine use, the widest first.
func allRegisters() (all []registers) {
	impls := Implementations()
	for _, r := range []struct {
		impl string
		registers
	}{{"avx512", registers{512, rounds512}}, {"avx2", registers{256, rounds256}}, {"aesni", registers{128, rounds128}}} {
		if slices.Contains(impls, r.impl) {
			all = append(all, r.registers)
		}
	}
	return all
}
