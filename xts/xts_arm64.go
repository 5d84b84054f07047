//go:build !purego

package xts

import "golang.org/x/sys/cpu"

// kernels is the implementations in assembly that this machine can run.
func kernels() []Implementation {
	if cpu.ARM64.HasAES {
		return []Implementation{arm64}
	}
	return nil
}

// encryptPieces encrypts a run of at least one piece. Kernels check nothing: pieces is a multiple of perSector, dst is src or lies
// apart from it.
func encryptPieces(_ Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	encryptARM64(keys, dst, src, pieces, tweak, perSector)
}

func decryptPieces(_ Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	decryptARM64(keys, dst, src, pieces, tweak, perSector)
}

//go:noescape
func encryptARM64(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func decryptARM64(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)
