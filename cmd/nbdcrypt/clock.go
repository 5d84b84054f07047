//go:build !clocktest

package main

import "nbdcrypt/pkg/clock"

// machineClock is the clock that the daemon goes by.
func machineClock() clock.Clock { return clock.System{} }
