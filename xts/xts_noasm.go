//go:build purego || !(amd64 || arm64)

package xts

func kernels() []Implementation { return nil }

func encryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	panic("xts: no assembly in this build")
}

func decryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	panic("xts: no assembly in this build")
}
