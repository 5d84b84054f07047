//go:build !purego

package aes256

var hardware bool // until the assembly is there

func expandKey(enc *Schedule, key *byte) {}

func invertKey(dec, enc *Schedule) {}

func xorKeystream(enc *Schedule, dst, src *byte, n int, counter *[BlockSize]byte) {}
