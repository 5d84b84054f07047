package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// avx2 is XTS on vectors of two blocks, for processors that have AES on vectors and not AVX-512.
func avx2() {
	reduction := GLOBL("reductionAVX2", RODATA|NOPTR)
	for i := range 4 {
		DATA(8*i, U64(0x87*(1-i%2)))
	}
	writeNarrow(vex{reduction}, "AVX2")
}

type vex struct {
	reduction Mem
}

func (vex) vector(i int) VecPhysical {
	return []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}[i]
}

func (vex) blocks() int { return 2 }

func (vex) encrypt(key Op, x VecPhysical)     { VAESENC(key, x, x) }
func (vex) encryptLast(key Op, x VecPhysical) { VAESENCLAST(key, x, x) }
func (vex) decrypt(key Op, x VecPhysical)     { VAESDEC(key, x, x) }
func (vex) decryptLast(key Op, x VecPhysical) { VAESDECLAST(key, x, x) }

func (vex) xor(a Op, b, to VecPhysical)     { VPXOR(a, b, to) }
func (vex) load(from Mem, to VecPhysical)   { VMOVDQU(from, to) }
func (vex) store(v VecPhysical, to Mem)     { VMOVDQU(v, to) }
func (vex) number(from Mem, v VecPhysical)  { VMOVQ(from, v) }
func (vex) broadcast(block, to VecPhysical) { VINSERTI128(Imm(1), block.AsX(), block, to) }

func (vex) whiten(text, tweaks Mem, key, x VecPhysical) []instruction {
	return []instruction{
		func() { VPXOR(tweaks, key, x) },
		func() { VPXOR(text, x, x) },
	}
}

func (vex) numbers(number, by Register, v VecPhysical) {
	VMOVQ(number, v.AsX())
	ADDQ(by, number)
	VMOVQ(number, X15)
	ADDQ(by, number)
	VINSERTI128(Imm(1), X15, v, v)
}

func (vex) words(v VecPhysical, lo, hi Register) {
	VMOVQ(v.AsX(), lo)
	VPEXTRQ(Imm(1), v.AsX(), hi)
}

func (e vex) start(v VecPhysical) {
	first := Y10
	emit(e.times(1, v, first))
	VPBLENDD(Imm(0b11_11_00_00), first, v, first)
}

// next multiplies the first vector's tweaks, so that no vector's have to wait for the last one's.
func (e vex) next(i int, x VecPhysical) []instruction {
	first := Y10
	if i == 0 {
		return []instruction{func() { VMOVDQA(first, x) }}
	}
	return e.times(uint64(i*e.blocks()), first, x)
}

// times multiplies each block by x to the power of bits. It adds what a shift of both words pushes out: of the low word to the high one,
// and of the high one, times x⁷ + x² + x + 1, to the low one.
func (e vex) times(bits uint64, v, to VecPhysical) []instruction {
	t := Y14
	return []instruction{
		func() { VPSRLQ(Imm(64-bits), v, t) },
		func() { VPCLMULQDQ(Imm(0x01), e.reduction, t, to) },
		func() { VPSLLDQ(Imm(8), t, t) },
		func() { VPXOR(t, to, to) },
		func() { VPSLLQ(Imm(bits), v, t) },
		func() { VPXOR(t, to, to) },
	}
}

func (e vex) clear() {
	for i := range 16 {
		VPXOR(e.vector(i), e.vector(i), e.vector(i))
	}
	VZEROUPPER()
}
