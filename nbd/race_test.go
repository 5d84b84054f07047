//go:build race

package nbd

// raced tells that the race detector is on: it has pools forget things.
const raced = true
