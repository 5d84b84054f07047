package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// What the end of a call writes costs time at the start of the next: stores wait in a queue until all before them is done, and a full
// queue holds back the next number's encryption, which nothing else can stand in for. So zeros are written as soon as tweaks are
// read for the last time, and most of them as vectors. If all were written behind the last block, as a Zen 4 encrypts single
// sectors of 4096 bytes, it would lose 0.7 % on vectors of one block and 2.2 % on those of two.

// zeroTweaks has zeros come after the last chunk. The first half of them wipes tweaks of the chunk before, the second half is never
// written. Integer registers have zeros in them ever after.
func (k *narrow) zeroTweaks() {
	for _, word := range []Register{k.lo, k.hi, k.even, k.odd, k.high} {
		XORQ(word, word)
	}
}

// lastHalf leaves nothing in vector registers or memory.
func (k *narrow) lastHalf() {
	half := k.chunk() / 2
	emit(k.firstRound(half))
	k.xor(k.spare, k.spare, k.spare)
	spread(k.middleRounds(), k.zeros(k.now, 0))
	emit(k.finalRound(half))
	k.wipeHalf(k.now, half)
	TESTQ(k.head, k.head)
	JZ(LabelRef("wiped"))
	for at := heads; at < heads+headsSize; at += k.width() {
		k.store(k.spare, k.at(at))
	}
	Label("wiped")
	k.clear()
}

// wipeHalf wipes the tweaks of half a chunk, from byte at on.
func (k *narrow) wipeHalf(tweaks Register, at int) {
	k.xor(k.spare, k.spare, k.spare)
	emit(k.zeros(tweaks, at))
}

// zeros does so with what spare holds.
func (k *narrow) zeros(tweaks Register, at int) (list []instruction) {
	for i := range k.x {
		list = append(list, func() { k.store(k.spare, Mem{Base: tweaks, Disp: at + i*k.width()}) })
	}
	return list
}
