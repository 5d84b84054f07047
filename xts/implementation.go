package xts

import (
	"slices"

	"nbdcrypt/pkg/aes256"
)

// An Implementation is one way of encrypting runs; all give the same bytes. Cipher uses the fastest one. Tests and benchmarks can
// ask for another.
type Implementation uint8

const (
	generic Implementation = iota
	aesni
	avx2
	avx512
	arm64
)

var (
	implementations = append(kernels(), generic)
	active          = implementations[0]
)

// Implementations returns what this machine and build can run, the fastest first. The portable one is always there, at the end.
func Implementations() []Implementation { return slices.Clone(implementations) }

func (i Implementation) String() string {
	return [...]string{generic: "generic", aesni: "aesni", avx2: "avx2", avx512: "avx512", arm64: "arm64"}[i]
}

// Encrypt is c.Encrypt on i, which must be one of Implementations.
func (i Implementation) Encrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	i.check()
	i.encrypt(c, dst, src, sectorSize, tweak)
}

// Decrypt is the inverse of Encrypt.
func (i Implementation) Decrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	i.check()
	i.decrypt(c, dst, src, sectorSize, tweak)
}

func (i Implementation) check() {
	if !slices.Contains(implementations, i) {
		panic("xts: this machine can't run that implementation")
	}
}

func (i Implementation) encrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	checkRun(c, dst, src, sectorSize)
	switch {
	case len(src) == 0:
	case i == generic:
		encryptGeneric(c.keys, dst, src, sectorSize, tweak)
	default:
		encryptPieces(i, c.keys, &dst[0], &src[0], len(src)/pieceSize, tweak, sectorSize/pieceSize)
	}
}

func (i Implementation) decrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	checkRun(c, dst, src, sectorSize)
	switch {
	case len(src) == 0:
	case i == generic:
		decryptGeneric(c.keys, dst, src, sectorSize, tweak)
	default:
		decryptPieces(i, c.keys, &dst[0], &src[0], len(src)/pieceSize, tweak, sectorSize/pieceSize)
	}
}

// pieceSize is both the unit that tweaks count in and what a kernel's loops are made of.
const pieceSize = 512

func checkRun(c *Cipher, dst, src []byte, sectorSize int) {
	switch {
	case c.keys == nil:
		panic("xts: use of a wiped cipher")
	case sectorSize != 512 && sectorSize != 4096:
		panic("xts: sectors have 512 or 4096 bytes")
	case len(src)%sectorSize != 0:
		panic("xts: not whole sectors")
	case len(dst) < len(src):
		panic("xts: dst is shorter than src")
	case aes256.PartialOverlap(dst[:len(src)], src):
		panic("xts: dst and src overlap in part")
	}
}
