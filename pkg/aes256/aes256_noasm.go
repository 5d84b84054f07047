//go:build purego || !(amd64 || arm64)

package aes256

var hardware bool // never

func expandKey(enc *Schedule, key *byte) { panic(noHardware) }

func invertKey(dec, enc *Schedule) { panic(noHardware) }

func xorKeystream(enc *Schedule, dst, src *byte, n int, counter *[BlockSize]byte) { panic(noHardware) }

const noHardware = "aes256: no assembly in this build"
