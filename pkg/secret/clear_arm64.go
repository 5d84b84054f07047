//go:build !purego

package secret

// clearRegisters zeroes the registers that compiled code and copying leave words in, save those of stack, goroutine and platform.
func clearRegisters()
