package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

// clearing zeroes the registers that compiled code and copying leave words in: the general ones, save stack and goroutine, and the
// vectors that are in use outside of the kernels, which clear what they use themselves.
func clearing() {
	TEXT("clearVectorsAVX", NOSPLIT, "func()")
	clearGeneral()
	VZEROALL()
	RET()

	TEXT("clearVectorsSSE", NOSPLIT, "func()")
	clearGeneral()
	for _, x := range []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15} {
		PXOR(x, x)
	}
	RET()
}

func clearGeneral() {
	for _, r := range []GPPhysical{EAX, EBX, ECX, EDX, ESI, EDI, R8L, R9L, R10L, R11L, R12L, R13L, R15L} {
		XORL(r, r)
	}
}
