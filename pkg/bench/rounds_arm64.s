//go:build !purego

#include "textflag.h"

// AESE adds the key before it substitutes, where amd64's AESENC adds it at the end. The rounds of both are in the same order with the key
// added once before all and once after all, outside of the loop. AESMC stands right behind its AESE because processors fuse the two.

#define EVERY(DO) \
	DO(V0);  DO(V1);  DO(V2);  DO(V3); \
	DO(V4);  DO(V5);  DO(V6);  DO(V7); \
	DO(V8);  DO(V9);  DO(V10); DO(V11)

#define ADD(x) VEOR V31.B16, x.B16, x.B16
#define LAST(x) AESE V31.B16, x.B16
#define ROUND(x) AESE V31.B16, x.B16; AESMC x.B16, x.B16

// func rounds128(state, key *byte, n int)
TEXT ·rounds128(SB), NOSPLIT, $0-24
	MOVD  state+0(FP), R0
	MOVD  key+8(FP), R1
	MOVD  n+16(FP), R2
	VLD1  (R1), [V31.B16]
	MOVD  R0, R3
	VLD1.P 64(R3), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R3), [V4.B16, V5.B16, V6.B16, V7.B16]
	VLD1  (R3), [V8.B16, V9.B16, V10.B16, V11.B16]
	EVERY(ADD)

loop:
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(ROUND)
	EVERY(LAST)
	SUB   $1, R2
	CBNZ  R2, loop

	EVERY(ADD)
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R0)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R0)
	VST1  [V8.B16, V9.B16, V10.B16, V11.B16], (R0)
	RET
