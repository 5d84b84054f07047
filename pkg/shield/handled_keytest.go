//go:build keytest

package shield

import "golang.org/x/sys/unix"

// forTests: pkg/secret collects garbage in this build when it is told to.
const forTests set = 1 << (unix.SIGUSR2 - 1)
