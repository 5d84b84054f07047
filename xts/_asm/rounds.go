package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// chains is how many registers of blocks are in flight: more than the eight that two rounds a cycle of four cycles each need, and few
// enough for the 16 registers that there are without AVX-512. Package bench has the same constant.
const chains = 12

// width is a size of register and its instructions.
type width struct {
	bits        int
	register    func() VecVirtual
	move        func(from, to Op)
	broadcast   func(from, to Op)
	round, last func(key, x Op)
}

// rounds writes AES rounds on nothing but registers: what no kernel can be faster than, for package bench to measure.
func rounds() {
	round, last := func(key, x Op) { VAESENC(key, x, x) }, func(key, x Op) { VAESENCLAST(key, x, x) }
	move512, broadcast512 := func(from, to Op) { VMOVDQU64(from, to) }, func(from, to Op) { VBROADCASTI32X4(from, to) }
	width{512, ZMM, move512, broadcast512, round, last}.write()
	width{256, YMM, VMOVDQU, VBROADCASTI128, round, last}.write()
	width{128, XMM, MOVUPS, MOVUPS, AESENC, AESENCLAST}.write()
}

// write writes one kernel: n times 13 rounds and a last one, all with one key, on a state of chains registers. That is loaded before the
// loop and stored after it, so that a test can see what the rounds did.
func (w width) write() {
	size := w.bits / 8
	TEXT(fmt.Sprintf("rounds%d", w.bits), NOSPLIT, "func(state, key *byte, n int)")
	state, n, key := Load(Param("state"), GP64()), Load(Param("n"), GP64()), w.register()
	w.broadcast(Mem{Base: Load(Param("key"), GP64())}, key)
	blocks := make([]Register, chains)
	for i := range blocks {
		blocks[i] = w.register()
		w.move(Mem{Base: state, Disp: i * size}, blocks[i])
	}
	Label("loop")
	for range 13 {
		for _, x := range blocks {
			w.round(key, x)
		}
	}
	for _, x := range blocks {
		w.last(key, x)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	for i, x := range blocks {
		w.move(x, Mem{Base: state, Disp: i * size})
	}
	if w.bits > 128 {
		VZEROUPPER()
	}
	RET()
}
