//go:build !purego

package xts

// kernels is the implementations in assembly that this machine can run.
func kernels() []Implementation { return nil }

func encryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
}

func decryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
}
