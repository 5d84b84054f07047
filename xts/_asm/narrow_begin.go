package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Scratch memory of a narrow kernel. What has tweaks in it has the mask in them.
const (
	tweakRing  = 0                       // of two chunks, of a piece at most; now and ahead change places
	heads      = tweakRing + 2*pieceSize // the first tweaks of eight sectors, unless there is only one
	headsSize  = 8 * blockSize
	leftAt     = heads + headsSize // chunks of the sector whose tweaks are not begun
	numberAt   = leftAt + 8        // the number of the first sector without a head
	narrowSize = numberAt + 8

	// narrowAlign lets a pointer's low bits tell the end of heads, which begin and end at a multiple of it.
	narrowAlign = headsSize
)

func (k *narrow) at(offset int) Mem { return Mem{Base: k.scratch, Disp: offset} }

// A call can't begin before its number is encrypted, which takes a Zen 4 56 cycles of the 1950 that it needs for 4096 bytes in vectors
// of one block. Little may come between that and the first eight vectors: their tweaks, and no store that something waits for. The
// other tweaks of the first chunk are made while those vectors are encrypted, which takes 1.6 % less time for single sectors, or
// 2.6 % with two blocks a vector, than if all were made first.

// begin begins the first eight vectors.
func (k *narrow) begin() {
	LEAQ(AllocLocal(narrowSize+narrowAlign).Offset(narrowAlign-1), k.scratch)
	ANDQ(I8(-narrowAlign), k.scratch)
	k.firstHeads()
	k.firstVectors()
	k.secondChunk()
	k.maskDoubling()
	LEAQ(k.at(tweakRing), k.now)
	LEAQ(k.at(tweakRing+k.chunk()), k.ahead)
}

// firstHeads encrypts the number of the only sector, or those of eight. The first one is the mask. For the only sector, head is zero.
func (k *narrow) firstHeads() {
	Load(Param("perSector"), k.carry)
	k.toChunks(k.carry)
	k.toChunks(k.chunks)
	MOVQ(k.carry, k.at(leftAt))
	CMPQ(k.chunks, k.carry)
	JNE(LabelRef("sectors"))
	XORQ(k.head, k.head)
	lone := X0 // without a second block, which would show round keys
	k.number(argument("tweak"), lone)
	k.encryptNumbers([]VecPhysical{lone})
	k.broadcast(k.x[0], k.mask)
	JMP(LabelRef("masked"))
	Label("sectors")
	LEAQ(k.at(heads+blockSize), k.head)
	Load(Param("tweak"), k.carry)
	MOVQ(k.carry, k.at(numberAt))
	k.eightHeads()
	k.broadcast(k.x[0], k.mask)
	k.maskHeads()
	Label("masked")
}

// argument is where the caller put it: for a vector register that is one move less than Load's.
func argument(name string) Mem {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}

// eightHeads makes the next eight, in x.
func (k *narrow) eightHeads() {
	x, number, by := k.x[:headsSize/k.width()], GP64(), k.carry
	MOVQ(k.at(numberAt), number)
	Load(Param("perSector"), by)
	for _, v := range x {
		k.numbers(number, by, v)
	}
	MOVQ(number, k.at(numberAt))
	k.encryptNumbers(x)
}

func (k *narrow) encryptNumbers(x []VecPhysical) {
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

// firstVectors makes tweaks in the registers where their vectors begin, and stores them for the last round.
func (k *narrow) firstVectors() {
	k.xor(k.key(0), k.mask, k.first)
	k.start(k.mask)
	for i, x := range k.x {
		emit(k.next(i, x))
		k.xor(k.mask, x, x)
		k.store(x, k.at(tweakRing+i*k.width()))
		k.load(Mem{Base: k.src, Disp: i * k.width()}, k.spare)
		k.xor(k.first, k.spare, k.spare)
		k.xor(k.spare, x, x)
	}
}

// secondChunk makes the first tweak of the second chunk. As firstVectors' instructions fill the vector units, it does so on integers.
func (k *narrow) secondChunk() {
	n := uint64(k.chunk() / blockSize)
	k.words(k.mask, k.even, k.high)
	MOVQ(k.even, k.lo)
	MOVQ(k.high, k.hi)
	MOVQ(k.even, k.carry)
	SHRQ(Imm(64-n), k.carry)
	SHLQ(Imm(n), k.lo)
	SHLQ(Imm(n), k.hi)
	XORQ(k.carry, k.hi)
	MOVQ(k.high, k.carry)
	SHRQ(Imm(64-n), k.carry)
	XORQ(k.carry, k.lo)
	for _, shift := range []uint64{1, 1, 5} { // to x, x² and x⁷
		SHLQ(Imm(shift), k.carry)
		XORQ(k.carry, k.lo)
	}
	XORQ(k.even, k.lo)
	XORQ(k.high, k.hi)
}

// maskDoubling finds what a doubled tweak needs to have the mask in it as before: the mask and its double. The mask's words are in even
// and high.
func (k *narrow) maskDoubling() {
	lo, hi := k.odd, GP64()
	MOVQ(k.even, lo)
	MOVQ(k.high, hi)
	MOVQ(hi, k.carry)
	SARQ(Imm(63), k.carry)
	ANDQ(U32(0x87), k.carry)
	ADDQ(lo, lo)
	ADCQ(hi, hi)
	XORQ(k.carry, lo)
	XORQ(lo, k.even)
	XORQ(hi, k.high)
	XORQ(hi, hi)
	MOVQ(k.even, k.odd)
	XORQ(U32(0x87), k.odd)
}

// firstHalf encrypts the vectors that are begun.
func (k *narrow) firstHalf() {
	k.firstNext()
	next := k.nextHalf(0)
	most := len(next) * 7 / 8
	spread(k.middleRounds(), k.ready(), next[:most])
	spread(k.finalRound(0), next[most:])
}

// firstNext does for the second chunk what nextTweaks does. In chunks of half a piece it has the same sector as the first.
func (k *narrow) firstNext() {
	if k.chunk() < pieceSize {
		DECQ(k.at(leftAt))
		return
	}
	CMPQ(k.chunks, Imm(1))
	JE(LabelRef("onlyChunk"))
	DECQ(k.at(leftAt))
	JNZ(LabelRef("begun"))
	k.nextSector()
	JMP(LabelRef("begun"))
	Label("onlyChunk")
	k.zeroTweaks()
	Label("begun")
}

// ready makes the tweaks of the second half and masks the keys. Before the final round it gives back spare and end.
func (k *narrow) ready() (list []instruction) {
	for _, r := range maskedRounds {
		list = append(list, func() { k.xor(k.key(r), k.mask, k.middle[r]) })
	}
	for i := inFlight; i < 2*inFlight; i++ {
		list = append(list, k.next(i, k.spare)...)
		list = append(list,
			func() { k.xor(k.mask, k.spare, k.spare) },
			func() { k.store(k.spare, k.at(tweakRing+i*k.width())) })
	}
	return append(list, func() { k.xor(k.key(lastRound), k.mask, k.end) })
}
