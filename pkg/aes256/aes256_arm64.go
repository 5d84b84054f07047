//go:build !purego

package aes256

import "golang.org/x/sys/cpu"

// hardware says that this processor has what the functions below are made of.
var hardware = cpu.ARM64.HasAES

// expandKey writes the schedule that encrypts under the KeySize bytes at key.
//
//go:noescape
func expandKey(enc *Schedule, key *byte)

// invertKey writes the schedule that decrypts what enc encrypts.
//
//go:noescape
func invertKey(dec, enc *Schedule)

// xorKeystream writes n bytes of src xor keystream to dst, which is src or lies apart from it. The keystream begins with the block
// that counter is on; its last four bytes count, big-endian, modulo 2³².
//
//go:noescape
func xorKeystream(enc *Schedule, dst, src *byte, n int, counter *[BlockSize]byte)
