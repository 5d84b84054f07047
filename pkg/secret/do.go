package secret

import "errors"

const (
	// doDepth is how much stack Do leaves clean: several times what the deepest computation on keys takes.
	doDepth = 32 << 10
	// doAbove is stack that lies idle above it. The garbage collector halves a stack of which less than a quarter is in use, and leaves
	// the old one behind as it was (runtime.shrinkstack). A new goroutine's stack that holds the two has 64 KiB.
	doAbove = 20 << 10
)

// errEnded is for tests that fail inside of Do.
var errEnded = errors.New("secret: the goroutine of Do was ended")

// Do runs f, a computation on keys, and leaves nothing of it on the stack and in registers: compiled code keeps words of what it
// works on in both. f has a goroutine of its own, since the stack of the caller may have any size, and so could be moved while f
// runs. f must not go deeper than doDepth, nor hand keys to other goroutines. A panic in f passes through, without the stack
// trace, which would print words.
func Do(f func()) {
	ended := make(chan any)
	go func() {
		failed := any(errEnded)
		defer func() { ended <- failed }()
		failed = clean(f)
	}()
	if failed := <-ended; failed != nil {
		panic(failed)
	}
}

// clean runs f far down the stack, and returns what it panicked with.
//
//go:noinline
func clean(f func()) any {
	var above [doAbove]byte
	keepAbove(&above)
	scrub() // so that the stack is large enough: growing it would leave the old one behind
	failed := try(f)
	scrub()
	clearRegisters()
	keepAbove(&above)
	return failed
}

//go:noinline
func try(f func()) (failed any) {
	defer func() { failed = recover() }()
	f()
	return nil
}

// scrub overwrites the stack below its caller.
//
//go:noinline
func scrub() {
	var below [doDepth]byte
	keep(&below)
}

// keep makes the compiler believe that its argument is needed.
//
//go:noinline
func keep(*[doDepth]byte) {}

//go:noinline
func keepAbove(*[doAbove]byte) {}
