package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// An encoding is a width of vector, on 16 registers, and the instructions for it.
type encoding interface {
	vector(i int) VecPhysical
	blocks() int // in a vector

	encrypt(key Op, x VecPhysical)
	encryptLast(key Op, x VecPhysical)
	decrypt(key Op, x VecPhysical)
	decryptLast(key Op, x VecPhysical)

	xor(a Op, b, to VecPhysical)
	store(v VecPhysical, to Mem)
	broadcast(block Mem, to VecPhysical)
	// whiten is x = text ^ tweaks ^ key. text need not be aligned.
	whiten(text, tweaks Mem, key, x VecPhysical) []instruction

	// numbers fills v with the blocks of number, number+by …, and takes number past them.
	numbers(number, by Register, v VecPhysical)
	// consecutive makes tweak, in every block, the tweaks of a vector that begins with it.
	consecutive(tweak, to VecPhysical)
	// times multiplies each block by x to the power of bits. It needs registers 13 to 15, as step does.
	times(bits uint64, v, to VecPhysical)
	// step makes the tweaks of a vector those of the next one.
	step(v VecPhysical)
	// clear zeroes all registers.
	clear()
}

// A narrow kernel works on 16 registers of one or two blocks. Eight vectors are in flight, which keeps two units for AES busy that
// take four cycles for a round. That leaves no registers for their tweaks, and the vector units little time to make any. So tweaks
// are doubled in integer registers, which have nothing else to do, and wait in memory. It is done a piece ahead of need, since a
// vector can't be loaded at full speed before the words that it was stored as have left for the cache.
//
// With every round key in memory, a vector would take 16 loads for its 14 rounds: of 13 keys, of text, and of the tweaks, twice. A
// processor that starts two loads and two rounds a cycle would wait for loads. So five of the 15 keys are in registers, XORed
// with a tweak of the run, the mask. Tweaks in memory have the mask in them as well: so the first and the last key lose it for
// nothing, and those of maskedRounds for an XOR. Share of the ceiling, which is AES on registers alone, on a Zen 4 with 64 KiB in
// sectors of 4096 bytes:
//
//	masked rounds        7     4, 9  4, 7, 10  3, 7, 11  3, 6, 9, 12
//	one block a vector   0.89  0.93  0.94      0.95      0.92
//	two blocks a vector  0.85  0.91  0.93      0.94      0.91
type narrow struct {
	encoding
	round, last func(key Op, x VecPhysical)
	schedule    int // of the data key, in keys

	keys, dst, src, pieces Register
	scratch, groups        Register // groups of vectors in flight, left in this piece
	now, ahead             Register // where this piece's tweaks are read, and the next one's written
	lo, hi, carry          Register // the tweak to write next
	even, odd, high        Register // what doubling adds: to the low word if it pushes out 0, or 1; to the high word

	x                []VecPhysical // in flight
	mask, first, end VecPhysical   // the mask, and with the mask in them the first key and the last one
	middle           map[int]VecPhysical
	spare            VecPhysical
}

const inFlight = 8

var maskedRounds = []int{3, 7, 11}

// Scratch memory, at an address divisible by 64.
const (
	tweakRing   = 0                         // the tweaks of two pieces; now and ahead change places
	narrowHeads = tweakRing + 2*pieceSize   // the first tweaks of eight sectors, without the mask
	maskAt      = narrowHeads + 8*blockSize // two vectors at most
	secondPiece = maskAt + 2*blockSize      // the first tweak of the second piece
	secretsEnd  = secondPiece + 2*blockSize //
	leftAt      = secretsEnd                // pieces of the sector whose tweaks are not written
	nextHead    = leftAt + 8                // the address of the next sector's first tweak
	numberAt    = nextHead + 8              // the number of the first sector after those with heads
	narrowSize  = numberAt + 8
)

func (k *narrow) at(offset int) Mem { return Mem{Base: k.scratch, Disp: offset} }
func (k *narrow) key(r int) Mem     { return roundKey(k.keys, r).Offset(k.schedule) }
func (k *narrow) width() int        { return k.blocks() * blockSize }

// writeNarrow writes a kernel for each direction.
func writeNarrow(e encoding, suffix string) {
	(&narrow{encoding: e, round: e.encrypt, last: e.encryptLast}).write("encrypt"+suffix, "encrypts")
	(&narrow{encoding: e, round: e.decrypt, last: e.decryptLast, schedule: scheduleSize}).write("decrypt"+suffix, "decrypts")
}

func (k *narrow) write(name, does string) {
	TEXT(name, 0, "func(keys, dst, src *byte, pieces int, tweak uint64, perSector int)")
	Doc(name + " " + does + " a run of pieces of 512 bytes, perSector of them under one number.")
	k.assign()
	k.begin()
	k.loop()
	k.wipe()
	RET()
}

func (k *narrow) assign() {
	k.keys, k.dst, k.src = Load(Param("keys"), GP64()), Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	k.pieces, k.scratch, k.groups, k.now, k.ahead = Load(Param("pieces"), GP64()), GP64(), GP64(), GP64(), GP64()
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

// begin has all ready for the first piece.
func (k *narrow) begin() {
	LEAQ(AllocLocal(narrowSize+64).Offset(63), k.scratch)
	ANDQ(I8(-64), k.scratch)
	LEAQ(k.at(tweakRing), k.now)
	LEAQ(k.at(tweakRing+pieceSize), k.ahead)
	k.firstHeads()
	k.firstTweaks()
	k.maskKeys()
	k.maskDoubling()
	MOVQ(k.at(secondPiece), k.lo)
	MOVQ(k.at(secondPiece+8), k.hi)
}

// firstHeads encrypts the number of the only sector, or those of eight.
func (k *narrow) firstHeads() {
	t := k.carry
	Load(Param("tweak"), t)
	MOVQ(t, k.at(numberAt))
	LEAQ(k.at(narrowHeads+blockSize), t)
	MOVQ(t, k.at(nextHead))
	Load(Param("perSector"), t)
	MOVQ(t, k.at(leftAt))
	CMPQ(k.pieces, t)
	JNE(LabelRef("sectors"))
	k.encryptNumbers(1)
	JMP(LabelRef("heads"))
	Label("sectors")
	k.encryptNumbers(8 / k.blocks())
	Label("heads")
}

// encryptNumbers makes vectors of heads.
func (k *narrow) encryptNumbers(vectors int) {
	x, number, by := k.x[:vectors], k.groups, k.carry
	key := func(r int) Mem { return roundKey(k.keys, r).Offset(2 * scheduleSize) }
	MOVQ(k.at(numberAt), number)
	Load(Param("perSector"), by)
	for _, v := range x {
		k.numbers(number, by, v)
	}
	MOVQ(number, k.at(numberAt))
	for _, v := range x {
		k.xor(key(0), v, v)
	}
	for r := 1; r < lastRound; r++ {
		for _, v := range x {
			k.encrypt(key(r), v)
		}
	}
	for i, v := range x {
		k.encryptLast(key(lastRound), v)
		k.store(v, k.at(narrowHeads+i*k.width()))
	}
}

// firstTweaks makes the mask, the tweaks of the first piece, and the first one of the second: on vectors, which wait for them.
func (k *narrow) firstTweaks() {
	k.broadcast(k.at(narrowHeads), k.mask)
	k.store(k.mask, k.at(maskAt))
	rows := []VecPhysical{k.vector(9), k.vector(10), k.vector(11), k.vector(12)}
	k.consecutive(k.mask, rows[0])
	for i := 1; i < len(rows); i++ {
		k.times(uint64(8*i), rows[0], rows[i])
	}
	masked := k.x[0]
	k.times(32, rows[0], masked)
	k.xor(k.mask, masked, masked)
	k.store(masked, k.at(secondPiece))
	for i, row := range rows {
		for v := range 8 / k.blocks() {
			if v > 0 {
				k.step(row)
			}
			k.xor(k.mask, row, masked)
			k.store(masked, k.at(tweakRing+8*blockSize*i+v*k.width()))
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

// maskDoubling finds what to add when a tweak with the mask m in it is doubled, for the result to have it as well: m and its double.
func (k *narrow) maskDoubling() {
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

func (k *narrow) loop() {
	Label("piece")
	k.nextTweaks()
	MOVQ(U32(pieceSize/(inFlight*k.width())), k.groups)
	Label("group")
	k.group()
	DECQ(k.groups)
	JNZ(LabelRef("group"))

	SUBQ(U32(pieceSize), k.now)
	SUBQ(U32(pieceSize), k.ahead)
	XCHGQ(k.now, k.ahead)
	DECQ(k.pieces)
	JNZ(LabelRef("piece"))
}

// nextTweaks chooses the tweak that the next piece begins with: the double of the last one or, in a new sector, the sector's head.
func (k *narrow) nextTweaks() {
	CMPQ(k.pieces, Imm(1))
	JE(LabelRef("lastPiece"))
	DECQ(k.at(leftAt))
	JNZ(LabelRef("groups"))

	head := k.groups
	Load(Param("perSector"), k.carry)
	MOVQ(k.carry, k.at(leftAt))
	MOVQ(k.at(nextHead), head)
	MOVQ(Mem{Base: head}, k.lo)
	MOVQ(Mem{Base: head, Disp: 8}, k.hi)
	XORQ(k.at(maskAt), k.lo)
	XORQ(k.at(maskAt+8), k.hi)
	ADDQ(Imm(blockSize), head)
	MOVQ(head, k.at(nextHead))
	k.nextHeads(head)
	JMP(LabelRef("groups"))

	// There is no next piece: zeros wipe its tweaks.
	Label("lastPiece")
	for _, word := range []Register{k.lo, k.hi, k.even, k.odd, k.high} {
		XORQ(word, word)
	}
	Label("groups")
}

// nextHeads encrypts numbers as soon as the last head is taken, and a piece ahead of need: integer instructions that wait for AES
// would fill the queue that all others have to pass.
func (k *narrow) nextHeads(head Register) {
	LEAQ(k.at(narrowHeads+8*blockSize), k.carry)
	CMPQ(head, k.carry)
	JNE(LabelRef("groups"))
	LEAQ(k.at(narrowHeads), head)
	MOVQ(head, k.at(nextHead))
	LEAQ(Mem{Base: k.pieces, Disp: -1}, k.carry)
	CMPQ(k.carry, k.at(leftAt))
	JE(LabelRef("groups")) // which is the last sector
	k.encryptNumbers(8 / k.blocks())
}

// group encrypts what is in flight at one time, and on the way writes as many tweaks of the next piece.
func (k *narrow) group() {
	var vectors, tweaks []instruction
	for i, x := range k.x {
		vectors = append(vectors, k.whiten(Mem{Base: k.src, Disp: i * k.width()}, Mem{Base: k.now, Disp: i * k.width()}, k.first, x)...)
	}
	for r := 1; r < lastRound; r++ {
		vectors = append(vectors, k.rounds(r)...)
	}
	vectors = append(vectors, k.lastRounds()...)
	for i := range inFlight * k.blocks() {
		tweaks = append(tweaks, k.nextTweak(Mem{Base: k.ahead, Disp: i * blockSize})...)
	}
	spread(vectors, tweaks)
	for _, pointer := range []Register{k.src, k.dst, k.now, k.ahead} {
		ADDQ(U32(inFlight*k.width()), pointer)
	}
}

// rounds are round r of the group. The XORs that take a mask off come after all rounds of the group: between them, they cost 0.03 of
// the ceiling.
func (k *narrow) rounds(r int) (list []instruction) {
	key, masked := k.middle[r]
	for _, x := range k.x {
		if masked {
			list = append(list, func() { k.round(key, x) })
		} else {
			list = append(list, func() { k.round(k.key(r), x) })
		}
	}
	for _, x := range k.x {
		if masked {
			list = append(list, func() { k.xor(k.mask, x, x) })
		}
	}
	return list
}

// lastRounds add the tweaks with the last key, and write. Stores come after all rounds: 0.01 of the ceiling.
func (k *narrow) lastRounds() (list []instruction) {
	for i, x := range k.x {
		list = append(list,
			func() { k.xor(Mem{Base: k.now, Disp: i * k.width()}, k.end, k.spare) },
			func() { k.last(k.spare, x) })
	}
	for i, x := range k.x {
		list = append(list, func() { k.store(x, Mem{Base: k.dst, Disp: i * k.width()}) })
	}
	return list
}

// nextTweak writes a tweak and doubles it. The test and the addition each set a flag for the instruction after; none between
// them does.
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

// wipe leaves nothing behind: in memory, what the last piece's zeros have not wiped; and in registers. Those for words are zeros by then.
func (k *narrow) wipe() {
	zero := k.x[0]
	k.xor(zero, zero, zero)
	for at := 0; at < pieceSize; at += k.width() {
		k.store(zero, Mem{Base: k.ahead, Disp: at})
	}
	for at := narrowHeads; at < secretsEnd; at += k.width() {
		k.store(zero, k.at(at))
	}
	k.clear()
}
