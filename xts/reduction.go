//go:build !selftest_broken

package xts

// reduction is x⁷ + x² + x + 1, what x¹²⁸ is in XTS's field (IEEE 1619, 5.2).
const reduction = 0x87
