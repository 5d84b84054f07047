package secret

// doDepth is how much stack Do leaves clean: several times what the deepest computation on keys takes.
const doDepth = 32 << 10

// Do runs f, a computation on keys, and leaves nothing of it on the stack and in registers: compiled code keeps words of what it
// works on in both. The stack is made large enough before, because growing it would leave the old one behind; f must not go
// deeper than doDepth, nor hand keys to other goroutines. A panic in f passes through, and leaves the stack as it is.
func Do(f func()) {
	scrub()
	f()
	scrub()
	clearRegisters()
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
