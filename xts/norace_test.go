//go:build !race

package xts

// most is the longest run of the tests, in sectors.
const most = 300
