package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// aesni is XTS on vectors of one block. It uses the old encodings of instructions, since there are processors with AES and without AVX.
func aesni() {
	doubling := GLOBL("doublingSSE", RODATA|NOPTR) // what a bit adds that is pushed out of the high word, and of the low one
	DATA(0, U64(0x87))
	DATA(8, U64(1))
	writeNarrow(sse{doubling}, "AESNI")
}

type sse struct {
	doubling Mem
}

func (sse) vector(i int) VecPhysical {
	return []VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15}[i]
}

func (sse) blocks() int { return 1 }

func (sse) encrypt(key Op, x VecPhysical)     { AESENC(key, x) }
func (sse) encryptLast(key Op, x VecPhysical) { AESENCLAST(key, x) }
func (sse) decrypt(key Op, x VecPhysical)     { AESDEC(key, x) }
func (sse) decryptLast(key Op, x VecPhysical) { AESDECLAST(key, x) }

func (sse) xor(a Op, b, to VecPhysical) {
	if b != to {
		MOVO(b, to)
	}
	PXOR(a, to)
}

func (sse) store(v VecPhysical, to Mem)     { MOVOU(v, to) }
func (sse) broadcast(block, to VecPhysical) { MOVO(block, to) }
func (sse) copy(v, to VecPhysical)          { MOVO(v, to) }

func (sse) whiten(text, tweaks Mem, key, x VecPhysical) []instruction {
	return []instruction{
		func() { MOVOU(text, x) },
		func() { PXOR(tweaks, x) },
		func() { PXOR(key, x) },
	}
}

func (sse) numbers(number, by Register, v VecPhysical) {
	MOVQ(number, v)
	ADDQ(by, number)
}

func (sse) consecutive(tweak, to VecPhysical) { MOVO(tweak, to) }

// times adds the bits that a shift of both words pushes out: those of the low word to the high one, and those of the high one, times
// x⁷ + x² + x + 1, to the low one.
func (sse) times(bits uint64, v, to VecPhysical) {
	low, high := X14, X15
	MOVO(v, low)
	PSRLQ(Imm(64-bits), low)
	MOVO(low, high)
	PSLLDQ(Imm(8), low)
	PSRLDQ(Imm(8), high)
	MOVO(v, to)
	PSLLQ(Imm(bits), to)
	PXOR(low, to)
	PXOR(high, to)
	for _, shift := range []uint64{1, 1, 5} { // to x, x² and x⁷
		PSLLQ(Imm(shift), high)
		PXOR(high, to)
	}
}

// step doubles.
func (e sse) step(v VecPhysical) {
	out := X14
	PSHUFD(Imm(0b11_01_11_11), v, out) // the top halves of the high word and of the low one
	PSRAL(Imm(31), out)
	PAND(e.doubling, out)
	PADDQ(v, v)
	PXOR(out, v)
}

func (e sse) clear() {
	for i := range 16 {
		PXOR(e.vector(i), e.vector(i))
	}
}
