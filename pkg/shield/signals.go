package shield

import (
	"fmt"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A set holds signal n as bit n-1, as the kernel does.
type set uint64

func setOf(signals ...unix.Signal) (s set) {
	for _, n := range signals {
		s |= 1 << (n - 1)
	}
	return s
}

func (s set) has(n unix.Signal) bool { return s&setOf(n) != 0 }

// names are for people: SIGURG, or "signal 40" where there is no name.
func (s set) names() []string {
	names := []string{}
	for ; s != 0; s &= s - 1 {
		n := unix.Signal(bits.TrailingZeros64(uint64(s)) + 1)
		name := unix.SignalName(n)
		if name == "" {
			name = fmt.Sprintf("signal %d", int(n))
		}
		names = append(names, name)
	}
	return names
}

// handled go on being handled. The first three end the daemon; the next six are a thread's own faults, which Go turns into panics.
// Signals 32 to 34 belong to the runtime and the C library, which send them when a program changes its user, as this one never does.
var handled = setOf(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV,
	unix.SIGSYS, 32, 33, 34) | forTests

// byDefault are left to the kernel instead of being ignored: SIGCHLD so that children can be waited for, and two that people send to end
// a process. Go would answer those by printing the registers of the thread.
var byDefault = setOf(unix.SIGCHLD, unix.SIGQUIT, unix.SIGABRT)

// sigaction is the kernel's structure, of which only the first field matters for a signal without a handler.
type sigaction struct {
	handler uintptr
	_       [3]uint64
}

const (
	sigDefault = 0
	sigIgnore  = 1
)

// silence takes the handlers from all other signals. Those that have none stay as they are.
func silence() error {
	for n := unix.Signal(1); n <= 64; n++ {
		if handled.has(n) {
			continue
		}
		var now sigaction
		if err := rtSigaction(n, nil, &now); err != nil {
			return err
		}
		if now.handler == sigDefault || now.handler == sigIgnore {
			continue
		}
		next := sigaction{handler: sigIgnore}
		if byDefault.has(n) {
			next.handler = sigDefault
		}
		if err := rtSigaction(n, &next, nil); err != nil {
			return err
		}
	}
	return nil
}

func rtSigaction(n unix.Signal, next, now *sigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(next)), uintptr(unsafe.Pointer(now)),
		unsafe.Sizeof(set(0)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("shield: silence signal %d: %w", int(n), errno)
	}
	return nil
}
