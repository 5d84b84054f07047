//go:build purego || (!amd64 && !arm64)

package bench

func allRegisters() []registers { return nil }
