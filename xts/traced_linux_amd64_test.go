//go:build !purego && !race

package xts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/aes256"
)

// To see what registers hold between two instructions of a kernel, a test runs its own binary once more, as a process that makes one
// call, and traces it. Both have the same list of calls, and the same functions at the same addresses.

// tracedCall is the environment variable with the number of the call that a process is to make.
const tracedCall = "XTS_TRACED_CALL"

// A call is what a traced process does.
type call struct {
	name string
	size int // of dst and src
	do   func(c *Cipher, key, dst, src []byte)
	undo func(c *Cipher, dst, src []byte) // what do did to dst, by other code
}

// firstNumber is that of the first sector of every call.
const firstNumber = 0x9e3779b97f4a7c15

// expansion is what makes round keys in registers. Without the instructions for that, there are no kernels either.
var expansion = call{"expand", pieceSize, func(c *Cipher, key, _, _ []byte) {
	c.keys.enc.Expand((*[aes256.KeySize]byte)(key))
}, func(_ *Cipher, dst, src []byte) { copy(dst, src) }}

// tracedCalls are expansion, then runs that pass every loop of every implementation in assembly, if there is any.
func tracedCalls() (list []call) {
	for _, i := range Implementations() {
		if i == generic {
			continue
		}
		for _, run := range []struct{ sectors, sectorSize int }{{1, 512}, {9, 512}, {1, 4096}, {5, 4096}} {
			for _, d := range []struct {
				name           string
				crypt, reverse crypter
			}{{"encrypt", i.Encrypt, generic.Decrypt}, {"decrypt", i.Decrypt, generic.Encrypt}} {
				name := fmt.Sprintf("%s/%s/%dx%d", i, d.name, run.sectors, run.sectorSize)
				list = append(list, call{name, run.sectors * run.sectorSize, func(c *Cipher, _, dst, src []byte) {
					d.crypt(c, dst, src, run.sectorSize, firstNumber)
				}, func(c *Cipher, dst, _ []byte) {
					d.reverse(c, dst, dst, run.sectorSize, firstNumber)
				}})
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return append([]call{expansion}, list...)
}

// tracedKey is the key of the n-th time that a process makes its call.
func tracedKey(n int) []byte { return random(byte(1+n), KeySize) }

// Only an init function can have TestMain run on the thread that is traced, the first one.
func init() {
	if os.Getenv(tracedCall) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	if number := os.Getenv(tracedCall); number != "" {
		beTraced(number)
		return
	}
	m.Run()
}

// beTraced makes a call twice, with other keys and texts in the same memory, each time after a signal that the tracer waits for. A
// wrong result ends it, which the tracer takes for a failure.
func beTraced(number string) {
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	debug.SetGCPercent(-1) // a collection would take away what deepenStack makes
	deepenStack(0)
	call := tracedCalls()[n]
	mem, key, dst, src := aes256.InsecureMemory(Size), make([]byte, KeySize), make([]byte, call.size), make([]byte, call.size)
	for n := range 2 {
		copy(key, tracedKey(n))
		copy(src, random(byte(10+n), len(src)))
		c, err := New(mem, key)
		if err != nil {
			panic(err)
		}
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGUSR1); err != nil {
			panic(err)
		}
		call.do(c, key, dst, src)
		if call.undo(c, dst, src); !bytes.Equal(dst, src) { // with registers that the tracer has emptied before
			panic("wrong result")
		}
	}
}

// belowCaller is how much of the stack below a kernel's caller the tests look at.
const belowCaller = 16 << 10

// deepenStack has the stack reach further down than that from wherever the caller calls next.
//
//go:noinline
func deepenStack(i int) byte {
	var frame [2 * belowCaller]byte
	frame[i]++
	return frame[len(frame)-1-i]
}

// A tracee is a traced process that stands still.
type tracee struct {
	t                        *testing.T
	pid                      int
	memory                   *os.File
	regs                     unix.PtraceRegs
	words                    []uint64 // regs, then what XSAVE saves, as readWords saw it last
	kernel, caller, returnTo uint64   // the kernel's address, the stack pointer and the address that it returns to
	steps                    int      // in assembly since the kernel began
}

// trace starts the process that makes the call of that number.
func trace(t *testing.T, number int) *tracee {
	t.Helper()
	// Only one thread can trace a process. It ends with the test, because of oneProcessor.
	runtime.LockOSThread()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprint(tracedCall, "=", number), "GODEBUG=asyncpreemptoff=1") // preemption comes as a signal
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip("this user may not trace a process: ", err)
	} else if err != nil {
		t.Fatal("a process to trace: ", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	p := &tracee{t: t, pid: cmd.Process.Pid}
	p.wait() // for the end of execve
	p.must(unix.PtraceSetOptions(p.pid, unix.PTRACE_O_EXITKILL))
	p.memory, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.pid), os.O_RDWR, 0)
	p.must(err)
	t.Cleanup(func() { p.memory.Close() })
	p.oneProcessor()
	return p
}

// oneProcessor puts this thread and the process on one processor: taking turns takes several times as long on two.
func (p *tracee) oneProcessor() {
	p.t.Helper()
	var allowed, one unix.CPUSet
	p.must(unix.SchedGetaffinity(0, &allowed))
	for i := 0; one.Count() == 0; i++ {
		if allowed.IsSet(i) {
			one.Set(i)
		}
	}
	p.must(unix.SchedSetaffinity(0, &one))
	p.must(unix.SchedSetaffinity(p.pid, &one))
}

// must ends the test on an error, after which nothing is known of the process.
func (p *tracee) must(err error) {
	p.t.Helper()
	if err != nil {
		file, line := source(p.regs.Rip)
		p.t.Fatalf("tracing process %d, at %s:%d: %v", p.pid, file, line, err)
	}
}

// wait waits until the process stands still and returns the signal that was the reason.
func (p *tracee) wait() unix.Signal {
	p.t.Helper()
	var status unix.WaitStatus
	_, err := unix.Wait4(p.pid, &status, 0, nil)
	p.must(err)
	if !status.Stopped() {
		p.t.Fatalf("the traced process has ended, with status %#x", status)
	}
	p.must(unix.PtraceGetRegs(p.pid, &p.regs))
	return status.StopSignal()
}

// runUntil runs until that signal. It keeps signals from the process, which needs none.
func (p *tracee) runUntil(signal unix.Signal) {
	p.t.Helper()
	for {
		p.must(unix.PtraceCont(p.pid, 0))
		if p.wait() == signal {
			return
		}
	}
}

// step runs one instruction.
//
// A kernel that needs much of a stack begins by asking whether there is enough. That is where Go takes a thread from a goroutine that
// has had it for long, so that the kernel begins once more.
func (p *tracee) step() {
	p.t.Helper()
	p.must(unix.PtraceSingleStep(p.pid))
	p.wait()
	if inAssembly(p.regs.Rip) { // and not in Go's scheduler
		p.steps++
	}
	if p.regs.Rip == p.kernel {
		p.blank()
	}
}

// enterKernel runs to the first instruction of our assembly in the next call.
func (p *tracee) enterKernel() {
	p.t.Helper()
	p.kernel = 0
	p.runUntil(unix.SIGUSR1)
	for !inAssembly(p.regs.Rip) {
		p.step()
	}
	p.kernel, p.caller = p.regs.Rip, p.regs.Rsp+8
	var address [8]byte
	_, err := p.memory.ReadAt(address[:], int64(p.regs.Rsp))
	p.must(err)
	p.returnTo = binary.NativeEndian.Uint64(address[:])
	p.blank()
}

// inKernel tells that the kernel has not returned.
func (p *tracee) inKernel() bool { return p.regs.Rip != p.returnTo }

// leaveKernel runs to where the kernel returns to.
func (p *tracee) leaveKernel() {
	p.t.Helper()
	const breakpoint = 0xcc
	instruction := make([]byte, 1)
	_, err := p.memory.ReadAt(instruction, int64(p.returnTo))
	p.must(err)
	_, err = p.memory.WriteAt([]byte{breakpoint}, int64(p.returnTo))
	p.must(err)
	p.runUntil(unix.SIGTRAP)
	_, err = p.memory.WriteAt(instruction, int64(p.returnTo))
	p.must(err)
	p.regs.Rip = p.returnTo
	p.must(unix.PtraceSetRegs(p.pid, &p.regs))
}

// blank zeroes, before the kernel's first instruction, whatever has no meaning for it: all vector registers, the others but
// those of Go's, and the stack below. What is found there afterwards comes from the kernel.
func (p *tracee) blank() {
	p.t.Helper()
	p.steps = 0
	_, err := p.memory.WriteAt(make([]byte, belowCaller-8), int64(p.caller-belowCaller))
	p.must(err)
	r := &p.regs
	for _, g := range []*uint64{&r.Rax, &r.Rbx, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi, &r.R8, &r.R9, &r.R10, &r.R11, &r.R12, &r.R13, &r.R15} {
		*g = 0
	}
	p.must(unix.PtraceSetRegs(p.pid, r))
	p.readWords()
	p.words[xsaveWords+changed] &^= vectorState
	p.must(p.moveXSAVE(unix.PTRACE_SETREGSET))
	p.readWords()
}

// stack is the words below the stack pointer of the kernel's caller.
func (p *tracee) stack() []uint64 {
	p.t.Helper()
	b, words := make([]byte, belowCaller), make([]uint64, belowCaller/8)
	_, err := p.memory.ReadAt(b, int64(p.caller-belowCaller))
	p.must(err)
	_, err = binary.Decode(b, binary.NativeEndian, words)
	p.must(err)
	return words
}

// Where things are in tracee.words. What XSAVE saves has fixed places at its beginning (Intel SDM 1, 13.4); where the registers of
// AVX-512 are depends on the processor, so the tests look at every word.
const (
	generalWords = int(unsafe.Sizeof(unix.PtraceRegs{}) / 8)
	xsaveWords   = (generalWords + 1) &^ 1 // even, as all vectors begin then

	saved   = 464 / 8 // what is in there, as bits of XCR0: Linux writes it, where software may
	changed = 512 / 8 // which of that is not as at the start of a process

	sseState, avxState, avx512State = 1 << 1, 1 << 2, 7 << 5
	vectorState                     = sseState | avxState | avx512State
)

// wordName says what word i of tracee.words is of.
func wordName(i int) string {
	if i < generalWords {
		return reflect.TypeFor[unix.PtraceRegs]().Field(i).Name
	}
	return fmt.Sprintf("byte %d of XSAVE", 8*(i-xsaveWords))
}

// readWords reads all registers.
func (p *tracee) readWords() {
	p.t.Helper()
	if p.words == nil {
		p.words = make([]uint64, 16<<10/8) // more than there is
	}
	copy(p.words, (*[generalWords]uint64)(unsafe.Pointer(&p.regs))[:])
	p.must(p.moveXSAVE(unix.PTRACE_GETREGSET))
	want := uint64(sseState)
	if cpu.X86.HasAVX {
		want |= avxState
	}
	if cpu.X86.HasAVX512F {
		want |= avx512State
	}
	if got := p.words[xsaveWords+saved]; got&want != want {
		p.t.Fatalf("ptrace shows the parts %#x of the processor's state, and not all vector registers, which are %#x", got, want)
	}
}

// moveXSAVE moves words to or from the process, and cuts them to what there is.
func (p *tracee) moveXSAVE(request uintptr) error {
	words := p.words[xsaveWords:]
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(&words[0])), Len: uint64(8 * len(words))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(p.pid), unix.NT_X86_XSTATE, uintptr(unsafe.Pointer(&v)), 0, 0)
	if errno != 0 {
		return errno
	}
	p.words = p.words[:xsaveWords+int(v.Len/8)]
	return nil
}

// inAssembly tells whether the instruction at address is of our own assembly.
func inAssembly(address uint64) bool {
	file, _ := source(address)
	return strings.HasSuffix(file, ".s") && strings.HasPrefix(runtime.FuncForPC(uintptr(address)).Name(), "nbdcrypt/")
}

// source is the line that the instruction at address is from.
func source(address uint64) (file string, line int) {
	f := runtime.FuncForPC(uintptr(address))
	if f == nil {
		return fmt.Sprintf("%#x", address), 0
	}
	file, line = f.FileLine(uintptr(address))
	return filepath.Base(file), line
}
