//go:build !race

package keystore_test

const slowdown = 1
