package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// aes256 is what package aes256 needs of the processor: key schedules, and keystream for GCM. A key is expanded once and a message
// has a few dozen bytes, so that the shortest code wins over the fastest. It uses the old encodings of instructions, since there are
// processors with AES and without AVX.
//
// A schedule is read with instructions that want it aligned to 16 bytes, and has each round key four times.
func aes256() {
	expandKey()
	invertKey()
	xorKeystream()
}

const (
	lastRound = 14
	copies    = 4
	blockSize = 16
)

// roundKey is the first copy of round key r in the schedule at base.
func roundKey(base Register, r int) Mem {
	return Mem{Base: base, Disp: r * copies * blockSize}
}

// storeRoundKey writes all copies.
func storeRoundKey(key Register, base Register, r int) {
	for c := range copies {
		MOVAPS(key, roundKey(base, r).Offset(c*blockSize))
	}
}

// expandKey is KeyExpansion (FIPS 197, 5.2). Round keys come in pairs, as the key has two of them.
func expandKey() {
	TEXT("expandKey", NOSPLIT, "func(enc, key *byte)")
	Doc("expandKey writes the schedule that encrypts under the 32 bytes at key.")
	enc, key := Load(Param("enc"), GP64()), Load(Param("key"), GP64())
	even, odd, word, shifted := XMM(), XMM(), XMM(), XMM()
	MOVUPS(Mem{Base: key}, even)
	MOVUPS(Mem{Base: key, Disp: blockSize}, odd)
	storeRoundKey(even, enc, 0)
	storeRoundKey(odd, enc, 1)
	for r := 2; r <= lastRound; r += 2 {
		AESKEYGENASSIST(U8(1<<(r/2-1)), odd, word)
		PSHUFD(U8(0b11_11_11_11), word, word) // SubWord(RotWord(w)) xor Rcon of the last column, in every column
		nextRoundKey(even, word, shifted)
		storeRoundKey(even, enc, r)
		if r == lastRound {
			break
		}
		AESKEYGENASSIST(U8(0), even, word)
		PSHUFD(U8(0b10_10_10_10), word, word) // SubWord(w), without rotation
		nextRoundKey(odd, word, shifted)
		storeRoundKey(odd, enc, r+1)
	}
	wipe(even, odd, word, shifted)
	RET()
}

// nextRoundKey turns the round key before the last into the next one: each column is added to all after it, and word to all.
func nextRoundKey(key, word, shifted VecVirtual) {
	MOVAPS(key, shifted)
	for range 3 {
		PSLLDQ(U8(4), shifted)
		PXOR(shifted, key)
	}
	PXOR(word, key)
}

// invertKey makes the schedule of the equivalent inverse cipher (FIPS 197, 5.3.5): the round keys in the other order, all but
// the first and the last through InvMixColumns.
func invertKey() {
	TEXT("invertKey", NOSPLIT, "func(dec, enc *byte)")
	Doc("invertKey writes the schedule that decrypts what enc encrypts.")
	dec, enc := Load(Param("dec"), GP64()), Load(Param("enc"), GP64())
	key := XMM()
	for r := range lastRound + 1 {
		if from := roundKey(enc, lastRound-r); r == 0 || r == lastRound {
			MOVAPS(from, key)
		} else {
			AESIMC(from, key)
		}
		storeRoundKey(key, dec, r)
	}
	wipe(key)
	RET()
}

// xorKeystream is GCTR (SP 800-38D, 6.5). Round keys are memory operands. Keystream exists in a register only: as a block, then, in
// a last block that is short, byte by byte.
func xorKeystream() {
	TEXT("xorKeystream", NOSPLIT, "func(enc, dst, src *byte, n int, counter *[16]byte)")
	Doc("xorKeystream writes n bytes of src xor keystream to dst. The keystream begins with the block that counter is on.")
	enc := Load(Param("enc"), GP64())
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	counter := Mem{Base: Load(Param("counter"), GP64())}
	count, swapped := GP32(), GP32()
	MOVL(counter.Offset(12), count)
	BSWAPL(count)
	block, text := XMM(), XMM()

	Label("next")
	TESTQ(n, n)
	JE(LabelRef("done"))
	MOVUPS(counter, block)
	MOVL(count, swapped)
	BSWAPL(swapped)
	PINSRD(U8(3), swapped, block)
	INCL(count)
	PXOR(roundKey(enc, 0), block)
	for r := 1; r < lastRound; r++ {
		AESENC(roundKey(enc, r), block)
	}
	AESENCLAST(roundKey(enc, lastRound), block)
	CMPQ(n, U8(blockSize))
	JB(LabelRef("tail"))
	MOVUPS(Mem{Base: src}, text)
	PXOR(text, block)
	MOVUPS(block, Mem{Base: dst})
	ADDQ(U8(blockSize), src)
	ADDQ(U8(blockSize), dst)
	SUBQ(U8(blockSize), n)
	JMP(LabelRef("next"))

	Label("tail")
	b := GP64()
	MOVQ(block, b)
	XORB(Mem{Base: src}, b.As8())
	MOVB(b.As8(), Mem{Base: dst})
	PSRLDQ(U8(1), block)
	INCQ(src)
	INCQ(dst)
	DECQ(n)
	JNE(LabelRef("tail"))
	XORL(b.As32(), b.As32())

	Label("done")
	wipe(block, text)
	RET()
}

// wipe clears registers that held something secret.
func wipe(registers ...VecVirtual) {
	for _, r := range registers {
		PXOR(r, r)
	}
}
