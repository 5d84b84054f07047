package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// avx512 is XTS on vectors of four blocks. A piece of 512 bytes is eight vectors, which are in flight together as two halves: the
// even vectors, whose tweaks are the first one's times x⁰, x⁸, x¹⁶ and x²⁴, and the odd ones, x⁴ times those. The halves are seven
// rounds apart, so that while one half ends its piece and begins the next, the other one keeps the units for AES busy.
//
// docs/performance.md has the figures that these choices come from.
func avx512() {
	constants := avx512Constants()
	avx512Kernel("encryptAVX512", "encrypts", VAESENC, VAESENCLAST, 0, constants)
	avx512Kernel("decryptAVX512", "decrypts", VAESDEC, VAESDECLAST, scheduleSize, constants)
}

const (
	scheduleSize = (lastRound + 1) * copies * blockSize
	vectorSize   = 4 * blockSize
	pieceSize    = 8 * vectorSize

	// maskedRound is the one round in the middle whose key is a register, XORed with a tweak. With all keys in memory, a processor
	// that loads one vector a cycle would load for longer than it encrypts; a second such round costs more XORs than it saves.
	maskedRound = 9

	xor3     = 0x96 // VPTERNLOGQ's table for the sum of three
	swapLoHi = 0b01_00_11_10
)

// Where constants are in avx512Constants.
const (
	numbers1  = 0   // of four sectors, in pieces: 0, 1, 2, 3 …
	numbers8  = 64  // … and 0, 8, 16, 24
	shiftsUp  = 128 // x⁰ to x³ as shifts in both words of a block, then x⁴ to x⁷
	shiftsOut = 256 // what those push out
	pickBytes = 384 // two for VPSHUFB, of 64 bytes
)

func avx512Constants() Mem {
	c := GLOBL("avx512Constants", RODATA|NOPTR)
	words := func(at int, word func(lane, half uint64) uint64) {
		for i := range uint64(8) {
			DATA(at+8*int(i), U64(word(i/2, i%2)))
		}
	}
	words(numbers1, func(lane, half uint64) uint64 { return lane * (1 - half) })
	words(numbers8, func(lane, half uint64) uint64 { return 8 * lane * (1 - half) })
	words(shiftsUp, func(lane, _ uint64) uint64 { return lane })
	words(shiftsUp+vectorSize, func(lane, _ uint64) uint64 { return 4 + lane })
	words(shiftsOut, func(lane, _ uint64) uint64 { return 64 - lane })
	words(shiftsOut+vectorSize, func(lane, _ uint64) uint64 { return 60 - lane })
	for i := range 2 * vectorSize {
		const zero = 0x80
		pick, word := zero, i/vectorSize*8+i%4*2
		switch i % blockSize / 4 {
		case 2:
			pick = word + 1 // the high byte
		case 3:
			pick = word
		}
		DATA(pickBytes+i, U8(pick))
	}
	return c
}

// An avx512State says what is where.
type avx512State struct {
	keys, dst, src, pieces, tweak, perSector Register
	numbers                                  Register // the constants for perSector
	left                                     Register // pieces of the sector that are not begun
	scratch, next, lane, other               Register
	lo, hi, carry                            Register // a tweak that is doubled
	constants                                Mem

	round, last func(key, in, out Op)
	schedule    int // of the data key, in keys

	x, t       [8]VecPhysical // the piece in flight, and its tweaks, of which all but two are XORed with their half's first
	n          [4]VecPhysical // the tweaks of the half that comes next
	b          VecPhysical    // the first of its odd half
	product    [2]VecPhysical // each half's first tweak's top four bytes times 0x87: four low bytes on top, the high ones below
	pick       [2]VecPhysical // what sorts them so
	tmp        [3]VecPhysical
	mask       VecPhysical // one tweak of the run, which the keys in registers are XORed with
	first, mid VecPhysical // those keys: before the first round, of maskedRound,
	final      VecPhysical // and of the last one
	upTo       [5]OpmaskPhysical
	loWords    OpmaskPhysical
}

func (s *avx512State) key(r int) Mem      { return roundKey(s.keys, r).Offset(s.schedule) }
func (s *avx512State) tweakKey(r int) Mem { return roundKey(s.keys, r).Offset(2 * scheduleSize) }

// scratch memory: the tweaks of two batches of four sectors, then the first two vectors of two sectors.
const (
	batchSize   = 4 * blockSize
	sectorHeads = 2 * batchSize
	headSize    = 2 * vectorSize
	scratchSize = sectorHeads + 2*headSize
)

// head is byte at of the vectors that s.next chooses.
func (s *avx512State) head(at int) Mem {
	return Mem{Base: s.scratch, Index: s.next, Scale: 1, Disp: sectorHeads + at}
}

func avx512Kernel(name, does string, round, last func(key, in, out Op), schedule int, constants Mem) {
	TEXT(name, NOSPLIT, "func(keys, dst, src *byte, pieces int, tweak uint64, perSector int)")
	Doc(name + " " + does + " a run of pieces of 512 bytes, perSector of them under one number.")
	s := &avx512State{constants: constants, round: round, last: last, schedule: schedule}
	s.assign()
	s.prologue()
	s.loop()
	s.epilogue()
	RET()
}

func (s *avx512State) assign() {
	z := []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
	copy(s.x[:], z)
	copy(s.t[:], z[8:])
	copy(s.n[:], z[16:])
	copy(s.product[:], z[20:])
	copy(s.pick[:], z[22:])
	copy(s.tmp[:], z[24:])
	s.b, s.mask, s.first, s.mid, s.final = z[27], z[28], z[29], z[30], z[31]
	s.upTo = [5]OpmaskPhysical{K0, K1, K2, K3, K4}
	s.loWords = K5

	s.keys, s.dst, s.src = Load(Param("keys"), GP64()), Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	s.pieces, s.tweak, s.perSector = Load(Param("pieces"), GP64()), Load(Param("tweak"), GP64()), Load(Param("perSector"), GP64())
	s.numbers, s.left, s.scratch, s.next, s.lane, s.other = GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	s.lo, s.hi, s.carry = GP64(), GP64(), GP64()
}

// half returns the vectors of half h and their tweaks.
func (s *avx512State) half(h int) (x, t []VecPhysical) {
	for i := h; i < 8; i += 2 {
		x, t = append(x, s.x[i]), append(t, s.t[i])
	}
	return x, t
}

// prologue begins the first piece: its even half is seven rounds ahead.
func (s *avx512State) prologue() {
	word := GP64()
	for m := 1; m < len(s.upTo); m++ { // bytes 1 to m of each block
		MOVQ(U64((1<<(m+1)-2)*0x0001000100010001), word)
		KMOVQ(word, s.upTo[m])
	}
	MOVL(U32(0b01010101), word.As32())
	KMOVB(word.As32(), s.loWords)

	frame := AllocLocal(scratchSize + vectorSize)
	LEAQ(frame.Offset(vectorSize-1), s.scratch)
	ANDQ(I8(-vectorSize), s.scratch)
	LEAQ(s.constants.Offset(numbers1), s.numbers)
	LEAQ(s.constants.Offset(numbers8), word)
	CMPQ(s.perSector, Imm(1))
	CMOVQNE(word, s.numbers)

	e := s.tmp[2]
	emit(s.encryptNumbers(e))
	CMPQ(s.pieces, s.perSector)
	JNE(LabelRef("sectors"))
	XORQ(s.numbers, s.numbers) // which says that scratch stays as it is
	JMP(LabelRef("begin"))
	Label("sectors")
	VMOVDQA64(e, Mem{Base: s.scratch})
	MOVQ(U32(blockSize), s.lane)
	XORQ(s.next, s.next)
	s.nextHead()
	Label("begin")
	emit(s.firstHead(e))
	VMOVDQA64(s.n[0], s.mask)
	VPXORQ(s.key(0), s.mask, s.first)
	VPXORQ(s.key(maskedRound), s.mask, s.mid)
	VPXORQ(s.key(lastRound), s.mask, s.final)

	for h, pick := range s.pick {
		VMOVDQU64(s.constants.Offset(pickBytes+h*vectorSize), pick)
	}
	emit(s.products(), s.tweaks(0))
	emit(s.begin(0, 0)...)
	spread(s.rounds(0, 1, 7), s.tweaks(1))
	emit(s.begin(1, 0)...)

	MOVQ(s.perSector, s.left)
}

// loop ends a piece and begins the next one each time round.
func (s *avx512State) loop() {
	Label("loop")
	DECQ(s.pieces)
	JZ(LabelRef("end"))
	DECQ(s.left)
	JNZ(LabelRef("sameSector"))

	MOVQ(s.perSector, s.left)
	VMOVDQA64(s.head(0), s.n[0])
	VMOVDQA64(s.head(vectorSize), s.b)
	s.nextHead()
	// With half of a batch used up, the next one is encrypted on the way.
	MOVQ(s.lane, s.other)
	ANDQ(Imm(batchSize-1), s.other)
	CMPQ(s.other, Imm(batchSize-blockSize))
	JNE(LabelRef("rounds"))
	s.piece(s.encryptNumbers(s.tmp[2]))
	MOVQ(s.lane, s.other)
	ANDQ(Imm(batchSize), s.other)
	XORQ(Imm(batchSize), s.other)
	VMOVDQA64(s.tmp[2], Mem{Base: s.scratch, Index: s.other, Scale: 1})
	JMP(LabelRef("loop"))

	Label("sameSector")
	emit(s.timesBytes(4, s.t[0], 0, s.n[0], s.tmp[0]), s.timesBytes(4, s.t[1], 1, s.b, s.tmp[1]))
	Label("rounds")
	s.piece(nil)
	JMP(LabelRef("loop"))
}

// piece takes the piece in flight to its end and the next one, whose first tweaks are known, to where it was; it does side on the way.
func (s *avx512State) piece(side []instruction) {
	p := s.products()
	free := 8 // products have done with the register that side works in
	early := min(len(side), 6)
	spread(alternate(s.rounds(0, 8, 13), s.rounds(1, 1, 6)),
		append(p[:free:free], merge(append(p[free:], s.tweaks(0)...), side[:early])...))
	s.turn(0, s.rounds(1, 7, 7))
	spread(alternate(s.rounds(0, 1, 6), s.rounds(1, 8, 13)), merge(s.tweaks(1), side[early:]))
	s.turn(1, s.rounds(0, 7, 7))
	ADDQ(U32(pieceSize), s.src)
	ADDQ(U32(pieceSize), s.dst)
}

// turn ends half h of one piece and begins that of the next, among a round of the other half.
func (s *avx512State) turn(h int, others []instruction) {
	end, begin := s.end(h), s.begin(h, pieceSize)
	for i := range others {
		emit(end[i], begin[i], others[i:i+1])
	}
}

// epilogue ends the last piece and leaves nothing behind.
func (s *avx512State) epilogue() {
	Label("end")
	emit(alternate(s.rounds(0, 8, 13), s.rounds(1, 1, 6)))
	for i, other := range s.rounds(1, 7, 7) {
		emit(s.end(0)[i])
		other()
	}
	emit(s.rounds(1, 8, 13))
	emit(s.end(1)...)

	zero := s.x[0]
	VPXORQ(zero, zero, zero)
	TESTQ(s.numbers, s.numbers)
	JZ(LabelRef("clear"))
	for at := 0; at < scratchSize; at += vectorSize {
		VMOVDQA64(zero, Mem{Base: s.scratch, Disp: at})
	}
	for _, word := range []Register{s.lo, s.hi, s.carry} {
		XORQ(word, word)
	}
	Label("clear")
	clearVectors(s.x[:], s.t[:], s.n[:], s.product[:], s.pick[:], s.tmp[:], []VecPhysical{s.b, s.mask, s.first, s.mid, s.final})
	VZEROUPPER()
}

func clearVectors(all ...[]VecPhysical) {
	for _, list := range all {
		for _, v := range list {
			VPXORQ(v, v, v)
		}
	}
}

// begin whitens half h of the piece that lies at from src, one vector at a time; its tweaks become those in flight.
func (s *avx512State) begin(h, at int) (list [][]instruction) {
	x, t := s.half(h)
	for i := range x {
		in := Mem{Base: s.src, Disp: at + vectorSize*(2*i+h)}
		keep := func() { VMOVDQA64(s.n[i], t[i]) }
		if i == 0 {
			list = append(list, []instruction{
				func() { VPXORQ(in, s.n[0], x[0]) },
				keep,
				func() { VPTERNLOGQ(Imm(xor3), s.mask, s.first, x[0]) },
			})
			continue
		}
		list = append(list, []instruction{ // this tweak has the mask in it
			func() { VMOVDQA64(s.n[i], x[i]) },
			keep,
			func() { VPTERNLOGQ(Imm(xor3), in, s.first, x[i]) },
		})
	}
	return list
}

// end is the last round, and writes.
func (s *avx512State) end(h int) (list [][]instruction) {
	x, t := s.half(h)
	for i := range x {
		unmask := func() { VPXORQ(t[i], x[i], x[i]) }
		if i == 0 {
			unmask = func() { VPTERNLOGQ(Imm(xor3), t[0], s.mask, x[0]) }
		}
		list = append(list, []instruction{
			func() { s.last(s.final, x[i], x[i]) },
			unmask,
			func() { VMOVDQU64(x[i], Mem{Base: s.dst, Disp: vectorSize * (2*i + h)}) },
		})
	}
	return list
}

// rounds are rounds from to to of half h.
func (s *avx512State) rounds(h, from, to int) (list []instruction) {
	x, _ := s.half(h)
	for r := from; r <= to; r++ {
		for _, v := range x {
			if r == maskedRound {
				list = append(list, func() { s.round(s.mid, v, v); VPXORQ(s.mask, v, v) })
			} else {
				list = append(list, func() { s.round(s.key(r), v, v) })
			}
		}
	}
	return list
}

// tweaks makes those of half h from its first one. All but that one get the mask.
func (s *avx512State) tweaks(h int) (list []instruction) {
	if h == 1 {
		list = append(list, func() { VMOVDQA64(s.b, s.n[0]) })
	}
	for m := 1; m < 4; m++ {
		spill := s.tmp[m%2]
		list = append(list, s.timesBytes(m, s.n[0], h, s.n[m], spill)[:2]...)
		list = append(list, func() { VPTERNLOGQ(Imm(xor3), spill, s.mask, s.n[m]) })
	}
	return list
}

// products multiplies the top four bytes of the first tweaks, n[0] and b, by x⁷ + x² + x + 1. That makes words, whose low and high
// bytes go where the bytes came from.
func (s *avx512State) products() []instruction {
	w, t, u := s.tmp[0], s.tmp[1], s.tmp[2]
	return []instruction{
		func() { VPXORQ(t, t, t) },
		func() { VPUNPCKHDQ(s.b, s.n[0], w) },
		func() { VPUNPCKHBW(t, w, w) },
		func() { VPSLLW(Imm(1), w, t) },
		func() { VPSLLW(Imm(2), w, u) },
		func() { VPTERNLOGQ(Imm(xor3), w, u, t) },
		func() { VPSLLW(Imm(7), w, w) },
		func() { VPXORQ(t, w, w) },
		func() { VPSHUFB(s.pick[0], w, s.product[0]) },
		func() { VPSHUFB(s.pick[1], w, s.product[1]) },
	}
}

// timesBytes makes src, half h's first tweak, times x⁸ᵐ: it shifts src by m bytes, and the products of those that this pushes out come
// in from below. A product's high byte spills into the next byte, and the lowest one's has nothing below it to come from.
func (s *avx512State) timesBytes(m int, src VecPhysical, h int, dst, spill VecPhysical) []instruction {
	return []instruction{
		func() { VPALIGNR_Z(Imm(uint64(11-m)), s.product[h], s.product[h], s.upTo[m], spill) },
		func() { VPALIGNR(Imm(uint64(16-m)), s.product[h], src, dst) },
		func() { VPXORQ(spill, dst, dst) },
	}
}

// encryptNumbers makes the first tweaks of the next four sectors.
func (s *avx512State) encryptNumbers(e VecPhysical) []instruction {
	list := []instruction{
		func() { VPBROADCASTQ_Z(s.tweak, s.loWords, e) },
		func() { LEAQ(Mem{Base: s.tweak, Index: s.perSector, Scale: 4}, s.tweak) },
		func() { VPADDQ(Mem{Base: s.numbers}, e, e) },
		func() { VPXORQ(s.tweakKey(0), e, e) },
	}
	for r := 1; r < lastRound; r++ {
		list = append(list, func() { VAESENC(s.tweakKey(r), e, e) })
	}
	return append(list, func() { VAESENCLAST(s.tweakKey(lastRound), e, e) })
}

// firstHead makes the first vectors of both halves, n[0] and b, of the run's first sector.
func (s *avx512State) firstHead(e VecPhysical) []instruction {
	swapped := s.tmp[0]
	list := []instruction{
		func() { VSHUFI64X2(Imm(0), e, e, e) },
		func() { VPSHUFD(Imm(swapLoHi), e, swapped) },
	}
	return append(list, merge(s.shift(0, e, swapped, s.n[0], s.tmp[1], s.first), s.shift(vectorSize, e, swapped, s.b, s.mid, s.final))...)
}

// shift multiplies e by the powers of x at constants. It adds the bits that leave the low word to the high one, and those that leave
// the high one, times x⁷ + x² + x + 1, to the low one. The registers t and u hold no keys yet.
func (s *avx512State) shift(at int, e, swapped, v, t, u VecPhysical) []instruction {
	return []instruction{
		func() { VPSLLVQ(s.constants.Offset(shiftsUp+at), e, v) },
		func() { VPSRLVQ(s.constants.Offset(shiftsOut+at), swapped, t) },
		func() { VPSLLQ_Z(Imm(1), t, s.loWords, u) },
		func() { VPTERNLOGQ(Imm(xor3), t, u, v) },
		func() { VPSLLQ_Z(Imm(2), t, s.loWords, u) },
		func() { VPSLLQ_Z(Imm(7), t, s.loWords, t) },
		func() { VPTERNLOGQ(Imm(xor3), t, u, v) },
	}
}

// nextHead makes the first vectors of the sector after the one that begins, a sector ahead of need, since a vector can't be loaded
// before the words that it was stored as have left for the cache. It works on words because nothing else does.
func (s *avx512State) nextHead() {
	lo, hi, carry := s.lo, s.hi, s.carry
	MOVQ(Mem{Base: s.scratch, Index: s.lane, Scale: 1}, lo)
	MOVQ(Mem{Base: s.scratch, Index: s.lane, Scale: 1, Disp: 8}, hi)
	ADDQ(Imm(blockSize), s.lane)
	ANDQ(Imm(2*batchSize-1), s.lane)
	XORQ(U32(headSize), s.next)
	for at := 0; at < headSize; at += blockSize {
		if at > 0 {
			MOVQ(hi, carry)
			SARQ(Imm(63), carry)
			ANDQ(U32(0x87), carry)
			ADDQ(lo, lo)
			ADCQ(hi, hi)
			XORQ(carry, lo)
		}
		MOVQ(lo, s.head(at))
		MOVQ(hi, s.head(at+8))
	}
}
