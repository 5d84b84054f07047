//go:build race

package xts

// thin makes the long tests take every 41st case: the race detector slows the portable code 40 times, and looks for races
// that no length or alignment adds to.
const thin = 41
