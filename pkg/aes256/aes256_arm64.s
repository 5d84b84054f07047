//go:build !purego

// AES-256 with the crypto extensions, for keys and for messages of a few hundred bytes: one block at a time, simply.

#include "textflag.h"

// STORE writes the round key K four times and moves on.
#define STORE(K, TO) \
	FSTPQ (K, K), (TO)   \
	FSTPQ (K, K), 32(TO) \
	ADD   $64, TO

// SUBWORD leaves SubWord of W's last word in each word of V4. AESE is SubBytes and ShiftRows here, as V5 is zero; and rows
// of a block with equal columns have nothing to shift.
#define SUBWORD(W) \
	VDUP W.S[3], V4.S4 \
	AESE V5.B16, V4.B16

// NEXTKEY makes K the round key two later, whose words sum up those of K; V4 has what the key between adds (FIPS 197, 5.2).
#define NEXTKEY(K) \
	VEXT $12, K.B16, V5.B16, V6.B16 \
	VEOR V6.B16, K.B16, K.B16       \
	VEXT $8, K.B16, V5.B16, V6.B16  \
	VEOR V6.B16, K.B16, K.B16       \
	VEOR V4.B16, K.B16, K.B16

// func expandKey(enc *Schedule, key *byte)
TEXT ·expandKey(SB), NOSPLIT, $0-16
	MOVD  enc+0(FP), R0
	MOVD  key+8(FP), R1
	MOVD  $1, R2 // the round constant
	VMOVI $0, V5.B16
	VLD1  (R1), [V0.B16, V1.B16]
	STORE(F0, R0)
	STORE(F1, R0)

pair:
	SUBWORD(V1)
	VSHL $24, V4.S4, V6.S4 // RotWord, which may as well come after SubWord
	VSRI $8, V4.S4, V6.S4
	VDUP R2, V4.S4
	VEOR V6.B16, V4.B16, V4.B16
	NEXTKEY(V0)
	STORE(F0, R0)
	LSL  $1, R2
	TBNZ $7, R2, done // the seventh pair is but one key
	SUBWORD(V0)
	NEXTKEY(V1)
	STORE(F1, R0)
	B    pair

done:
	VMOVI $0, V0.B16
	VMOVI $0, V1.B16
	VMOVI $0, V4.B16
	VMOVI $0, V5.B16
	VMOVI $0, V6.B16
	RET

// func invertKey(dec, enc *Schedule)
TEXT ·invertKey(SB), NOSPLIT, $0-16
	MOVD  dec+0(FP), R0
	MOVD  enc+8(FP), R1
	ADD   $(14*64), R1
	MOVD  $13, R2
	FMOVQ (R1), F0
	STORE(F0, R0)

key:
	SUB    $64, R1
	FMOVQ  (R1), F0
	AESIMC V0.B16, V0.B16
	STORE(F0, R0)
	SUBS   $1, R2
	BNE    key
	SUB    $64, R1
	FMOVQ  (R1), F0
	STORE(F0, R0)
	VMOVI  $0, V0.B16
	RET

#define ROUND(r) \
	FMOVQ (64*r)(R0), F1 \
	AESE  V1.B16, V0.B16 \
	AESMC V0.B16, V0.B16

// func xorKeystream(enc *Schedule, dst, src *byte, n int, counter *[BlockSize]byte)
TEXT ·xorKeystream(SB), NOSPLIT, $0-40
	MOVD  enc+0(FP), R0
	MOVD  dst+8(FP), R1
	MOVD  src+16(FP), R2
	MOVD  n+24(FP), R3
	MOVD  counter+32(FP), R4
	VLD1  (R4), [V2.B16]
	MOVWU 12(R4), R5
	REVW  R5, R5

block:
	REVW R5, R6
	VMOV R6, V2.S[3]
	ADDW $1, R5 // modulo 2³² (SP 800-38D, 6.2)
	VMOV V2.B16, V0.B16
	ROUND(0)
	ROUND(1)
	ROUND(2)
	ROUND(3)
	ROUND(4)
	ROUND(5)
	ROUND(6)
	ROUND(7)
	ROUND(8)
	ROUND(9)
	ROUND(10)
	ROUND(11)
	ROUND(12)
	FMOVQ (64*13)(R0), F1
	AESE  V1.B16, V0.B16
	FMOVQ (64*14)(R0), F1
	VEOR  V1.B16, V0.B16, V0.B16
	SUBS  $16, R3
	BLT   tail
	VLD1.P 16(R2), [V3.B16]
	VEOR   V3.B16, V0.B16, V0.B16
	VST1.P [V0.B16], 16(R1)
	BNE    block

// Whatever was taken from n, its low four bits count the bytes that are left: 8, 4, 2 and 1 of them, each from the low end of R6.
tail:
	VMOV    V0.D[0], R6
	TBZ     $3, R3, four
	MOVD.P  8(R2), R7
	EOR     R6, R7
	MOVD.P  R7, 8(R1)
	VMOV    V0.D[1], R6

four:
	TBZ     $2, R3, two
	MOVWU.P 4(R2), R7
	EOR     R6, R7
	MOVW.P  R7, 4(R1)
	LSR     $32, R6

two:
	TBZ     $1, R3, one
	MOVHU.P 2(R2), R7
	EOR     R6, R7
	MOVH.P  R7, 2(R1)
	LSR     $16, R6

one:
	TBZ     $0, R3, done
	MOVBU   (R2), R7
	EOR     R6, R7
	MOVB    R7, (R1)

done:
	MOVD  ZR, R6
	MOVD  ZR, R7
	VMOVI $0, V0.B16
	VMOVI $0, V1.B16
	VMOVI $0, V2.B16
	VMOVI $0, V3.B16
	RET
