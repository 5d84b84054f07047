//go:build race

package xts

// most is small because the race detector slows portable code 40 times, and looks for races, which no length adds to.
const most = 12
