package main

import (
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A narrow kernel works on 16 registers of one or two blocks. Eight vectors are in flight, which keeps two units for AES busy that
// take four cycles for a round. That leaves no registers for their tweaks, and the vector units little time to make any: Intel's
// three have 21 slots a vector, for 14 rounds and 6 XORs. So tweaks are doubled in integer registers, which have nothing else to
// do, and wait in memory. That happens a chunk of 16 vectors ahead of need, since a vector can't be loaded at full speed before the
// words that it was stored as have left for the cache: eight vectors ahead, a Zen 4 would lose a quarter.
//
// With every round key in memory, a vector would take 16 loads for its 14 rounds: of 13 keys, of text, and of the tweak, twice. A
// processor that starts two loads and two rounds a cycle would wait for loads. So five of the 15 keys are in registers, XORed
// with a tweak of the run, the mask. Tweaks in memory have the mask in them as well, so that the first and the last key lose it for
// nothing, and those of maskedRounds for an XOR. Share of the ceiling, which is AES on registers alone, on a Zen 4 with 64 KiB in
// sectors of 4096 bytes:
//
//	masked rounds        none  7     5, 10  3, 7, 11  2, 5, 8, 12
//	one block a vector   0.84  0.88  0.94   0.96      0.94
//	two blocks a vector  0.81  0.82  0.91   0.94      0.93
//
// Tweaks that have the first key in them instead of the mask, which saves an XOR a vector, gain nothing. Nor do four vectors a few rounds
// behind the other four, which hides an AVX-512 kernel's gaps: here they take 0.03 to 0.05 of the ceiling.
type narrow struct {
	encoding
	round, last func(key Op, x VecPhysical)
	schedule    int // of the data key, in keys

	keys, dst, src, chunks Register
	scratch                Register
	now, ahead             Register // where this chunk's tweaks are read, and the next one's written
	head                   Register // the first tweak of the next sector
	lo, hi, carry          Register // the tweak to write next
	even, odd, high        Register // what doubling adds: to the low word if it pushes out 0, or 1; to the high word

	x                []VecPhysical       // in flight
	mask, first, end VecPhysical         // the mask, and with the mask in them the first key and the last one,
	middle           map[int]VecPhysical // and those of maskedRounds
	spare            VecPhysical
}

const inFlight = 8

var maskedRounds = []int{3, 7, 11}

// An encoding is a width of vector, on 16 registers, and the instructions for it.
type encoding interface {
	vector(i int) VecPhysical
	blocks() int // in a vector

	encrypt(key Op, x VecPhysical)
	encryptLast(key Op, x VecPhysical)
	decrypt(key Op, x VecPhysical)
	decryptLast(key Op, x VecPhysical)

	xor(a Op, b, to VecPhysical)
	load(from Mem, to VecPhysical)
	store(v VecPhysical, to Mem)
	// whiten is x = text ^ tweaks ^ key. text need not be aligned.
	whiten(text, tweaks Mem, key, x VecPhysical) []instruction
	// clear zeroes all registers.
	clear()

	// number fills the only block of v.
	number(from Mem, v VecPhysical)
	// numbers fills v with the blocks of number, number+by …, and takes number past them.
	numbers(number, by Register, v VecPhysical)
	// broadcast fills a vector with the first block of v.
	broadcast(v, to VecPhysical)
	// words are those of the first block of v.
	words(v VecPhysical, lo, hi Register)
	// start prepares for the tweaks of a run that begins with the tweak in every block of v.
	start(v VecPhysical)
	// next makes x the tweaks of vector i, for each of the first chunk's in turn. From start on it needs registers 10 and 14.
	next(i int, x VecPhysical) []instruction
}

// writeNarrow writes a kernel for each direction.
func writeNarrow(e encoding, suffix string) {
	encrypt := &narrow{encoding: e, round: e.encrypt, last: e.encryptLast}
	encrypt.write("encrypt"+suffix, "encrypts")
	decrypt := &narrow{encoding: e, round: e.decrypt, last: e.decryptLast, schedule: scheduleSize}
	decrypt.write("decrypt"+suffix, "decrypts")
}

// write begins in the middle of the first chunk and ends in the middle of the last one: their other halves are code of their own.
func (k *narrow) write(name, does string) {
	TEXT(name, 0, "func(keys, dst, src *byte, pieces int, tweak uint64, perSector int)")
	Doc(name + " " + does + " a run of pieces of 512 bytes, perSector of them under one number.")
	k.assign()
	k.begin()
	k.firstHalf()
	JMP(LabelRef("secondHalf"))
	Label("chunk")
	k.nextTweaks()
	k.encryptHalf(0)
	Label("secondHalf")
	DECQ(k.chunks)
	JZ(LabelRef("lastHalf"))
	k.encryptHalf(k.chunk() / 2)
	ADDQ(U32(k.chunk()), k.src)
	ADDQ(U32(k.chunk()), k.dst)
	XCHGQ(k.now, k.ahead)
	JMP(LabelRef("chunk"))
	Label("lastHalf")
	k.lastHalf()
	RET()
}

func (k *narrow) assign() {
	k.keys, k.dst, k.src = Load(Param("keys"), GP64()), Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	k.chunks = Load(Param("pieces"), GP64())
	k.scratch, k.now, k.ahead, k.head = GP64(), GP64(), GP64(), GP64()
	k.lo, k.hi, k.carry, k.even, k.odd, k.high = GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	for i := range inFlight {
		k.x = append(k.x, k.vector(i))
	}
	k.mask, k.first, k.end, k.spare = k.vector(8), k.vector(9), k.vector(10), k.vector(15)
	k.middle = map[int]VecPhysical{}
	for i, r := range maskedRounds {
		k.middle[r] = k.vector(11 + i)
	}
}

func (k *narrow) key(r int) Mem      { return roundKey(k.keys, r).Offset(k.schedule) }
func (k *narrow) tweakKey(r int) Mem { return roundKey(k.keys, r).Offset(2 * scheduleSize) }
func (k *narrow) width() int         { return k.blocks() * blockSize }
func (k *narrow) chunk() int         { return 2 * inFlight * k.width() } // a piece, or half of one

// toChunks turns a number of pieces into one of chunks.
func (k *narrow) toChunks(n Register) {
	if k.chunk() < pieceSize {
		ADDQ(n, n)
	}
}

// nextTweaks chooses what the tweaks of the next chunk begin with: the double of the last one or, in a new sector, its head.
func (k *narrow) nextTweaks() {
	CMPQ(k.chunks, Imm(1))
	JE(LabelRef("lastChunk"))
	DECQ(k.at(leftAt))
	JNZ(LabelRef("chosen"))
	k.nextSector()
	TESTQ(U32(headsSize-1), k.head)
	JNZ(LabelRef("chosen"))
	k.nextHeads()
	JMP(LabelRef("chosen"))

	Label("lastChunk")
	k.zeroTweaks()
	k.wipeHalf(k.ahead, k.chunk()/2)
	Label("chosen")
}

// nextSector takes a head.
func (k *narrow) nextSector() {
	Load(Param("perSector"), k.carry)
	k.toChunks(k.carry)
	MOVQ(k.carry, k.at(leftAt))
	MOVQ(Mem{Base: k.head}, k.lo)
	MOVQ(Mem{Base: k.head, Disp: 8}, k.hi)
	ADDQ(Imm(blockSize), k.head)
}

// nextHeads makes eight more when the last one is taken, a chunk ahead of need: integer instructions that wait for AES would fill the
// queue that all others have to pass.
func (k *narrow) nextHeads() {
	SUBQ(U32(headsSize), k.head)
	LEAQ(Mem{Base: k.chunks, Disp: -1}, k.carry)
	CMPQ(k.carry, k.at(leftAt))
	JE(LabelRef("chosen")) // the last sector
	k.eightHeads()
	k.maskHeads()
}

// encryptHalf encrypts half a chunk, and on the way writes the tweaks of half of the next.
func (k *narrow) encryptHalf(at int) {
	spread(slices.Concat(k.firstRound(at), k.middleRounds(), k.finalRound(at)), k.nextHalf(at))
}

func (k *narrow) middleRounds() (list []instruction) {
	for r := 1; r < lastRound; r++ {
		list = append(list, k.middleRound(r)...)
	}
	return list
}

// firstRound begins vectors, from byte at of the chunk on.
func (k *narrow) firstRound(at int) (list []instruction) {
	for i, x := range k.x {
		offset := at + i*k.width()
		list = append(list, k.whiten(Mem{Base: k.src, Disp: offset}, Mem{Base: k.now, Disp: offset}, k.first, x)...)
	}
	return list
}

// middleRound takes a mask off after the round of all vectors. An XOR after each vector's would take 0.05 of the ceiling.
func (k *narrow) middleRound(r int) (list []instruction) {
	key, masked := Op(k.key(r)), false
	if k.middle[r] != nil {
		key, masked = k.middle[r], true
	}
	for _, x := range k.x {
		list = append(list, func() { k.round(key, x) })
	}
	for _, x := range k.x {
		if masked {
			list = append(list, func() { k.xor(k.mask, x, x) })
		}
	}
	return list
}

// finalRound stores after the round of all vectors. A store after each vector's would take 0.02 of the ceiling.
func (k *narrow) finalRound(at int) (list []instruction) {
	for i, x := range k.x {
		tweaks := Mem{Base: k.now, Disp: at + i*k.width()}
		list = append(list,
			func() { k.xor(tweaks, k.end, k.spare) },
			func() { k.last(k.spare, x) })
	}
	for i, x := range k.x {
		list = append(list, func() { k.store(x, Mem{Base: k.dst, Disp: at + i*k.width()}) })
	}
	return list
}

// nextHalf writes the tweaks of the next chunk, from byte at of it on.
func (k *narrow) nextHalf(at int) (list []instruction) {
	for end := at + k.chunk()/2; at < end; at += blockSize {
		list = append(list, k.nextTweak(Mem{Base: k.ahead, Disp: at})...)
	}
	return list
}

// nextTweak writes a tweak and doubles it. Each flag is read by the instruction after the one that sets it; vector instructions, which
// may come between, leave flags alone. Without the test, the carry of the addition could choose, but then a tweak would take four
// cycles from the last one, not three, and two blocks a vector need one in three and a half.
func (k *narrow) nextTweak(at Mem) []instruction {
	return []instruction{
		func() { MOVQ(k.lo, at) },
		func() { MOVQ(k.hi, at.Offset(8)) },
		func() { MOVQ(k.even, k.carry) },
		func() { TESTQ(k.hi, k.hi) },
		func() { CMOVQMI(k.odd, k.carry) },
		func() { ADDQ(k.lo, k.lo) },
		func() { ADCQ(k.hi, k.hi) },
		func() { XORQ(k.carry, k.lo) },
		func() { XORQ(k.high, k.hi) },
	}
}
