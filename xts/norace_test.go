//go:build !race

package xts

// thin 1 has the long tests take every case.
const thin = 1
