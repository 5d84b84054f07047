//go:build purego || (!amd64 && !arm64)

package secret

// clearRegisters would take assembly.
func clearRegisters() {}
