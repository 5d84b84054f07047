package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Scratch memory of a narrow kernel. What has tweaks in it has the mask in them.
const (
	tweakRing   = 0                       // of two chunks, of a piece at most; now and ahead change places
	heads       = tweakRing + 2*pieceSize // the first tweaks of eight sectors
	headsSize   = 8 * blockSize
	maskAt      = heads + headsSize    // a vector, of two blocks at most
	secondChunk = maskAt + 2*blockSize // a vector that begins with the first tweak of the second chunk
	secretsEnd  = secondChunk + 2*blockSize
	leftAt      = secretsEnd // chunks of the sector whose tweaks are not begun
	numberAt    = leftAt + 8 // the number of the first sector without a head
	narrowSize  = numberAt + 8

	// narrowAlign lets a pointer's low bits tell the end of heads, which begin and end at a multiple of it.
	narrowAlign = headsSize
)

func (k *narrow) at(offset int) Mem { return Mem{Base: k.scratch, Disp: offset} }

// begin has all ready for the first chunk.
func (k *narrow) begin() {
	LEAQ(AllocLocal(narrowSize+narrowAlign).Offset(narrowAlign-1), k.scratch)
	ANDQ(I8(-narrowAlign), k.scratch)
	LEAQ(k.at(tweakRing), k.now)
	LEAQ(k.at(tweakRing+k.chunk()), k.ahead)
	LEAQ(k.at(heads+blockSize), k.head)
	k.firstHeads()
	k.firstTweaks()
	k.maskKeys()
	k.maskDoubling()
	MOVQ(k.at(secondChunk), k.lo)
	MOVQ(k.at(secondChunk+8), k.hi)
}

// firstHeads encrypts the number of the only sector, or those of eight. The first one is the mask.
func (k *narrow) firstHeads() {
	t := k.carry
	Load(Param("tweak"), t)
	MOVQ(t, k.at(numberAt))
	Load(Param("perSector"), t)
	k.toChunks(t)
	k.toChunks(k.chunks)
	MOVQ(t, k.at(leftAt))
	CMPQ(k.chunks, t)
	JNE(LabelRef("sectors"))
	k.encryptNumbers(1)
	k.broadcast(k.x[0], k.mask)
	JMP(LabelRef("masked"))
	Label("sectors")
	k.encryptNumbers(headsSize / k.width())
	k.broadcast(k.x[0], k.mask)
	k.maskHeads()
	Label("masked")
}

// encryptNumbers makes vectors of heads, in x.
func (k *narrow) encryptNumbers(vectors int) {
	x, number, by := k.x[:vectors], GP64(), k.carry
	MOVQ(k.at(numberAt), number)
	Load(Param("perSector"), by)
	for _, v := range x {
		k.numbers(number, by, v)
	}
	MOVQ(number, k.at(numberAt))
	for _, v := range x {
		k.xor(k.tweakKey(0), v, v)
	}
	for r := 1; r < lastRound; r++ {
		for _, v := range x {
			k.encrypt(k.tweakKey(r), v)
		}
	}
	for _, v := range x {
		k.encryptLast(k.tweakKey(lastRound), v)
	}
}

// maskHeads puts the mask in the heads and stores them.
func (k *narrow) maskHeads() {
	for i, v := range k.x[:headsSize/k.width()] {
		k.xor(k.mask, v, v)
		k.store(v, k.at(heads+i*k.width()))
	}
}

// firstTweaks makes the tweaks of the first chunk, in four rows, and that the second one begins with. It does so on vectors, which have to
// wait for tweaks.
func (k *narrow) firstTweaks() {
	rows, second, change := []VecPhysical{k.vector(9), k.vector(10), k.vector(11), k.vector(12)}, k.x[0], k.x[1]
	perRow := k.chunk() / len(rows)
	k.consecutive(k.mask, rows[0])
	for i := 1; i < len(rows); i++ {
		k.times(uint64(i*perRow/blockSize), rows[0], rows[i])
	}
	k.times(uint64(k.chunk()/blockSize), rows[0], second)
	k.copy(k.mask, change) // a step multiplies the mask too
	k.step(change)
	for _, v := range append(rows, second, change) {
		k.xor(k.mask, v, v)
	}
	k.store(second, k.at(secondChunk))
	for at := 0; at < perRow; at += k.width() {
		for i, row := range rows {
			if at > 0 {
				k.step(row)
				k.xor(change, row, row)
			}
			k.store(row, k.at(tweakRing+i*perRow+at))
		}
	}
}

func (k *narrow) maskKeys() {
	k.xor(k.key(0), k.mask, k.first)
	k.xor(k.key(lastRound), k.mask, k.end)
	for _, r := range maskedRounds {
		k.xor(k.key(r), k.mask, k.middle[r])
	}
}

// maskDoubling finds what a doubled tweak needs to have the mask in it as before: the mask and its double.
func (k *narrow) maskDoubling() {
	k.store(k.mask, k.at(maskAt))
	MOVQ(k.at(maskAt), k.even)
	MOVQ(k.at(maskAt+8), k.high)
	MOVQ(k.even, k.lo)
	MOVQ(k.high, k.hi)
	MOVQ(k.hi, k.carry)
	SARQ(Imm(63), k.carry)
	ANDQ(U32(0x87), k.carry)
	ADDQ(k.lo, k.lo)
	ADCQ(k.hi, k.hi)
	XORQ(k.carry, k.lo)
	XORQ(k.lo, k.even)
	XORQ(k.hi, k.high)
	MOVQ(k.even, k.odd)
	XORQ(U32(0x87), k.odd)
}
