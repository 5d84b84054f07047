//go:build !purego

package secret

import "golang.org/x/sys/cpu"

func clearRegisters() {
	if cpu.X86.HasAVX {
		clearVectorsAVX()
		return
	}
	clearVectorsSSE()
}

func clearVectorsAVX()

func clearVectorsSSE()
