//go:build !purego

// XTS-AES-256 with the crypto extensions. A round of a block is AESE (AddRoundKey, SubBytes, ShiftRows) and AESMC (MixColumns) on one
// register, right after each other: Cortex-A57, A72 and A76, Neoverse and Apple's cores fuse such a pair into one operation.
//
// Eight blocks are in flight. By Arm's optimisation guides, as LLVM models them, an AES instruction takes 2 cycles; Neoverse N1 starts
// one a cycle, V1 and V2 start four. If a pair takes 2 cycles as well, four pipes need eight blocks, and N1's one needs two. The
// tweaks of this group of eight and of the next take 16 registers; 16 blocks would leave no room for theirs. AES should bind: 14 pairs a
// block are 14 cycles on N1 and 3.5 on V1. The rest (3 VEOR and an insert on the vector pipes, 4 integer operations and 2 moves for
// the tweak, a quarter of a load and of a store, 2 loads of round keys) fits beside on N1, and shares pipes with AES on V1.
// llvm-mca 19, which knows no fusion and was given one instruction for a pair, estimates 14.5 and 4.8 cycles a block; nothing
// was measured on such a machine.
//
// While a group is encrypted, the tweaks of the next are doubled in integer registers, one in each of the first eight rounds; and the
// first group of a sector takes the number of the next sector along, as a ninth block under the tweak key. Only the first
// sector of a call waits for its tweak.
//
// AES has no memory operands here, and a signal saves all registers. So a round key is loaded right before its round, always into V16,
// where it replaces the one before; all registers that have held secrets are cleared at the end.

#include "go_asm.h"
#include "textflag.h"

#define KEYS R0
#define DST R1
#define SRC R2
#define PIECES R3 // that follow the sector
#define NUMBER R4
#define PERSECTOR R5
#define PAIRS R6 // of groups, left in the sector
#define LO R7 // the tweak that is next
#define HI R8
#define CARRY R9
#define REDUCTION R10

// DOUBLE moves the next tweak to T, and multiplies it by α (IEEE 1619, 5.2).
#define DOUBLE(T) \
	VDUP LO, T.D2                 \
	VMOV HI, T.D[1]               \
	AND  HI->63, REDUCTION, CARRY \
	ADDS LO, LO, LO               \
	ADC  HI, HI, HI               \
	EOR  CARRY, LO, LO

// TWEAKROUND is round r of the number of a sector in V17, and TWEAKEND the last one.
#define TWEAKROUND(r) \
	FMOVQ (schedules_tweak+64*r)(KEYS), F16 \
	AESE  V16.B16, V17.B16                  \
	AESMC V17.B16, V17.B16

#define TWEAKEND \
	FMOVQ (schedules_tweak+64*13)(KEYS), F16 \
	AESE  V16.B16, V17.B16                   \
	FMOVQ (schedules_tweak+64*14)(KEYS), F16 \
	VEOR  V16.B16, V17.B16, V17.B16

// ALONE stands for TWEAKROUND where no number is taken along.
#define ALONE(r)

// ROUND is round r of eight blocks, under the schedule at offset S of the keys.
#define ROUND(AES, MIX, S, r) \
	FMOVQ (S+64*r)(KEYS), F16 \
	AES   V16.B16, V0.B16     \
	MIX   V0.B16, V0.B16      \
	AES   V16.B16, V1.B16     \
	MIX   V1.B16, V1.B16      \
	AES   V16.B16, V2.B16     \
	MIX   V2.B16, V2.B16      \
	AES   V16.B16, V3.B16     \
	MIX   V3.B16, V3.B16      \
	AES   V16.B16, V4.B16     \
	MIX   V4.B16, V4.B16      \
	AES   V16.B16, V5.B16     \
	MIX   V5.B16, V5.B16      \
	AES   V16.B16, V6.B16     \
	MIX   V6.B16, V6.B16      \
	AES   V16.B16, V7.B16     \
	MIX   V7.B16, V7.B16

// LASTROUND is round 14, which mixes no columns and adds a second key: XORed with the tweaks beforehand, it is out of the blocks' way.
#define LASTROUND(AES, S, T0, T1, T2, T3, T4, T5, T6, T7) \
	FMOVQ (S+64*14)(KEYS), F16    \
	VEOR  V16.B16, T0.B16, T0.B16 \
	VEOR  V16.B16, T1.B16, T1.B16 \
	VEOR  V16.B16, T2.B16, T2.B16 \
	VEOR  V16.B16, T3.B16, T3.B16 \
	VEOR  V16.B16, T4.B16, T4.B16 \
	VEOR  V16.B16, T5.B16, T5.B16 \
	VEOR  V16.B16, T6.B16, T6.B16 \
	VEOR  V16.B16, T7.B16, T7.B16 \
	FMOVQ (S+64*13)(KEYS), F16    \
	AES   V16.B16, V0.B16         \
	AES   V16.B16, V1.B16         \
	AES   V16.B16, V2.B16         \
	AES   V16.B16, V3.B16         \
	AES   V16.B16, V4.B16         \
	AES   V16.B16, V5.B16         \
	AES   V16.B16, V6.B16         \
	AES   V16.B16, V7.B16         \
	ADDTWEAKS(T0, T1, T2, T3, T4, T5, T6, T7)

#define ADDTWEAKS(T0, T1, T2, T3, T4, T5, T6, T7) \
	VEOR T0.B16, V0.B16, V0.B16 \
	VEOR T1.B16, V1.B16, V1.B16 \
	VEOR T2.B16, V2.B16, V2.B16 \
	VEOR T3.B16, V3.B16, V3.B16 \
	VEOR T4.B16, V4.B16, V4.B16 \
	VEOR T5.B16, V5.B16, V5.B16 \
	VEOR T6.B16, V6.B16, V6.B16 \
	VEOR T7.B16, V7.B16, V7.B16

// GROUP is eight blocks with the tweaks T0 to T7. It leaves those of the next group in N0 to N7, and has BESIDE do its rounds beside.
#define GROUP(AES, MIX, S, BESIDE, T0, T1, T2, T3, T4, T5, T6, T7, N0, N1, N2, N3, N4, N5, N6, N7) \
	VLD1.P 64(SRC), [V0.B16, V1.B16, V2.B16, V3.B16]  \
	VLD1.P 64(SRC), [V4.B16, V5.B16, V6.B16, V7.B16]  \
	ADDTWEAKS(T0, T1, T2, T3, T4, T5, T6, T7)         \
	ROUND(AES, MIX, S, 0)                             \
	BESIDE(0)                                         \
	DOUBLE(N0)                                        \
	ROUND(AES, MIX, S, 1)                             \
	BESIDE(1)                                         \
	DOUBLE(N1)                                        \
	ROUND(AES, MIX, S, 2)                             \
	BESIDE(2)                                         \
	DOUBLE(N2)                                        \
	ROUND(AES, MIX, S, 3)                             \
	BESIDE(3)                                         \
	DOUBLE(N3)                                        \
	ROUND(AES, MIX, S, 4)                             \
	BESIDE(4)                                         \
	DOUBLE(N4)                                        \
	ROUND(AES, MIX, S, 5)                             \
	BESIDE(5)                                         \
	DOUBLE(N5)                                        \
	ROUND(AES, MIX, S, 6)                             \
	BESIDE(6)                                         \
	DOUBLE(N6)                                        \
	ROUND(AES, MIX, S, 7)                             \
	BESIDE(7)                                         \
	DOUBLE(N7)                                        \
	ROUND(AES, MIX, S, 8)                             \
	BESIDE(8)                                         \
	ROUND(AES, MIX, S, 9)                             \
	BESIDE(9)                                         \
	ROUND(AES, MIX, S, 10)                            \
	BESIDE(10)                                        \
	ROUND(AES, MIX, S, 11)                            \
	BESIDE(11)                                        \
	ROUND(AES, MIX, S, 12)                            \
	BESIDE(12)                                        \
	LASTROUND(AES, S, T0, T1, T2, T3, T4, T5, T6, T7) \
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(DST)  \
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(DST)

// Groups take turns in which registers hold their tweaks and which those of the next.
#define EVENGROUP(AES, MIX, S, BESIDE) \
	GROUP(AES, MIX, S, BESIDE, V8, V9, V10, V11, V12, V13, V14, V15, V18, V19, V20, V21, V22, V23, V24, V25)

#define ODDGROUP(AES, MIX, S) \
	GROUP(AES, MIX, S, ALONE, V18, V19, V20, V21, V22, V23, V24, V25, V8, V9, V10, V11, V12, V13, V14, V15)

// BEGIN encrypts the number of the first sector and makes the tweaks of its first group.
#define BEGIN \
	MOVD  $const_reduction, REDUCTION \
	FMOVD NUMBER, F17                 \
	TWEAKROUND(0)                     \
	TWEAKROUND(1)                     \
	TWEAKROUND(2)                     \
	TWEAKROUND(3)                     \
	TWEAKROUND(4)                     \
	TWEAKROUND(5)                     \
	TWEAKROUND(6)                     \
	TWEAKROUND(7)                     \
	TWEAKROUND(8)                     \
	TWEAKROUND(9)                     \
	TWEAKROUND(10)                    \
	TWEAKROUND(11)                    \
	TWEAKROUND(12)                    \
	TWEAKEND                          \
	TAKETWEAK                         \
	DOUBLE(V8)                        \
	DOUBLE(V9)                        \
	DOUBLE(V10)                       \
	DOUBLE(V11)                       \
	DOUBLE(V12)                       \
	DOUBLE(V13)                       \
	DOUBLE(V14)                       \
	DOUBLE(V15)

// TAKETWEAK makes the first tweak of a sector the next one.
#define TAKETWEAK \
	VMOV V17.D[0], LO \
	VMOV V17.D[1], HI

// CLEAR leaves no secret in a register.
#define CLEAR \
	MOVD  ZR, LO      \
	MOVD  ZR, HI      \
	MOVD  ZR, CARRY   \
	VMOVI $0, V0.B16  \
	VMOVI $0, V1.B16  \
	VMOVI $0, V2.B16  \
	VMOVI $0, V3.B16  \
	VMOVI $0, V4.B16  \
	VMOVI $0, V5.B16  \
	VMOVI $0, V6.B16  \
	VMOVI $0, V7.B16  \
	VMOVI $0, V8.B16  \
	VMOVI $0, V9.B16  \
	VMOVI $0, V10.B16 \
	VMOVI $0, V11.B16 \
	VMOVI $0, V12.B16 \
	VMOVI $0, V13.B16 \
	VMOVI $0, V14.B16 \
	VMOVI $0, V15.B16 \
	VMOVI $0, V16.B16 \
	VMOVI $0, V17.B16 \
	VMOVI $0, V18.B16 \
	VMOVI $0, V19.B16 \
	VMOVI $0, V20.B16 \
	VMOVI $0, V21.B16 \
	VMOVI $0, V22.B16 \
	VMOVI $0, V23.B16 \
	VMOVI $0, V24.B16 \
	VMOVI $0, V25.B16

// RUN is a whole call. PAIRS counts groups in twos, as they take turns in which registers hold their tweaks.
#define RUN(AES, MIX, S) \
	BEGIN                              \
sector:                                    \
	LSL   $1, PERSECTOR, PAIRS         \
	SUBS  PERSECTOR, PIECES, PIECES    \
	BEQ   even                         \
	ADD   PERSECTOR, NUMBER, NUMBER    \
	FMOVD NUMBER, F17                  \
	EVENGROUP(AES, MIX, S, TWEAKROUND) \
	TWEAKEND                           \
	B     odd                          \
even:                                      \
	EVENGROUP(AES, MIX, S, ALONE)      \
odd:                                       \
	SUBS  $1, PAIRS, PAIRS             \
	BNE   same                         \
	TAKETWEAK                          \
same:                                      \
	ODDGROUP(AES, MIX, S)              \
	CBNZ  PAIRS, even                  \
	CBNZ  PIECES, sector               \
	CLEAR                              \
	RET

// func encryptARM64(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)
TEXT ·encryptARM64(SB), NOSPLIT, $0-48
	MOVD keys+0(FP), KEYS
	MOVD dst+8(FP), DST
	MOVD src+16(FP), SRC
	MOVD pieces+24(FP), PIECES
	MOVD tweak+32(FP), NUMBER
	MOVD perSector+40(FP), PERSECTOR
	RUN(AESE, AESMC, schedules_enc)

// func decryptARM64(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)
TEXT ·decryptARM64(SB), NOSPLIT, $0-48
	MOVD keys+0(FP), KEYS
	MOVD dst+8(FP), DST
	MOVD src+16(FP), SRC
	MOVD pieces+24(FP), PIECES
	MOVD tweak+32(FP), NUMBER
	MOVD perSector+40(FP), PERSECTOR
	RUN(AESD, AESIMC, schedules_dec)
