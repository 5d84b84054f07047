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

func (sse) load(from Mem, to VecPhysical)   { MOVOU(from, to) }
func (sse) store(v VecPhysical, to Mem)     { MOVOU(v, to) }
func (sse) number(from Mem, v VecPhysical)  { MOVQ(from, v) }
func (sse) broadcast(block, to VecPhysical) { MOVO(block, to) }

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

func (sse) words(v VecPhysical, lo, hi Register) {
	MOVQ(v, lo)
	PEXTRQ(Imm(1), v, hi)
}

func (sse) start(v VecPhysical) {
	tweak, top := X10, X14
	MOVO(v, tweak)
	PSHUFD(Imm(0b11_01_11_11), v, top) // the top halves of the high word and of the low one
}

// next doubles. It finds the bits that are pushed out in the first tweak, of which up to 32 doublings change no other bits than they
// push to the left: so a tweak takes two cycles from the last one, not four.
func (e sse) next(i int, x VecPhysical) (list []instruction) {
	tweak, top := X10, X14
	if i > 0 {
		list = []instruction{
			func() { MOVO(top, x) },
			func() { PSRAL(Imm(31), x) },
			func() { PAND(e.doubling, x) },
			func() { PADDL(top, top) },
			func() { PADDQ(tweak, tweak) },
			func() { PXOR(x, tweak) },
		}
	}
	return append(list, func() { MOVO(tweak, x) })
}

func (e sse) clear() {
	for i := range 16 {
		PXOR(e.vector(i), e.vector(i))
	}
}
