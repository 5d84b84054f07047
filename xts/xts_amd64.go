//go:build !purego

package xts

import "golang.org/x/sys/cpu"

// kernels is the implementations in assembly that this machine can run, the fastest first.
func kernels() (list []Implementation) {
	if hasAVX512() {
		list = append(list, avx512)
	}
	if hasAVX2() {
		list = append(list, avx2)
	}
	if hasAESNI() {
		list = append(list, aesni)
	}
	return list
}

// hasAVX512 tells of vectors of four blocks. The package cpu sets all of these only where the system saves such registers.
func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VAES
}

// hasAVX2 tells of AES on vectors of two blocks, which there are processors that have without AVX-512. The package cpu does not
// look for that, but HasAVX2 says that the system saves such registers.
func hasAVX2() bool {
	const vaes, vpclmulqdq = 1 << 9, 1 << 10
	return cpu.X86.HasAVX2 && features7()&(vaes|vpclmulqdq) == vaes|vpclmulqdq
}

func hasAESNI() bool {
	return cpu.X86.HasAES && cpu.X86.HasSSE41
}

// features7 is ECX of CPUID's leaf 7, subleaf 0; the leaf must be there.
func features7() uint32

// encryptPieces has i encrypt a run of at least one piece. Kernels check nothing: pieces is a multiple of perSector, dst is src or
// lies apart from it.
func encryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	switch i {
	case avx512:
		encryptAVX512(keys, dst, src, pieces, tweak, perSector)
	case avx2:
		encryptAVX2(keys, dst, src, pieces, tweak, perSector)
	case aesni:
		encryptAESNI(keys, dst, src, pieces, tweak, perSector)
	}
}

func decryptPieces(i Implementation, keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int) {
	switch i {
	case avx512:
		decryptAVX512(keys, dst, src, pieces, tweak, perSector)
	case avx2:
		decryptAVX2(keys, dst, src, pieces, tweak, perSector)
	case aesni:
		decryptAESNI(keys, dst, src, pieces, tweak, perSector)
	}
}

//go:noescape
func encryptAVX512(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func decryptAVX512(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func encryptAVX2(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func decryptAVX2(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func encryptAESNI(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)

//go:noescape
func decryptAESNI(keys *schedules, dst, src *byte, pieces int, tweak uint64, perSector int)
