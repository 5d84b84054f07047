package attest

import (
	"sync"
	"unsafe"

	"nbdcrypt/pkg/aes256"
	"nbdcrypt/pkg/secret"
)

// A window is as many bytes as are looked at together: those of a round key.
type window [aes256.BlockSize]byte

// A print stands for a window.
type print struct {
	strong window // who has no more than this can neither turn it back nor, without the printer, try a guess
	sieve  uint32 // sieveBits of the window's first half
}

// sieveBits is how much the sieve needs to know of a window: few enough of its 128 bits to leave the rest unknown.
const sieveBits = 20

// A printer makes prints. What it is made of is as secret as a key: with it, guesses can be tried on prints.
type printer struct {
	schedule   aes256.Schedule
	multiplier uint64 // odd
}

// thePrinter lies in key memory as long as the process does, as prints are compared long after they were taken.
var thePrinter = sync.OnceValues(func() (*printer, error) {
	const size = int(unsafe.Sizeof(printer{}))
	mem, err := secret.New(size, secret.Purpose{Kind: "attest", For: "knowing the traces of wiped keys"})
	if err != nil {
		return nil, err
	}
	random, err := secret.RandomWork(aes256.KeySize+8, secret.Purpose{Kind: "attest", For: "making its key"})
	if err != nil {
		mem.Destroy()
		return nil, err
	}
	defer random.Destroy()
	p := (*printer)(unsafe.Pointer(&mem.Bytes()[0]))
	secret.Do(func() {
		p.schedule.Expand((*[aes256.KeySize]byte)(random.Bytes()))
		p.multiplier = head(random.Bytes()[aes256.KeySize:]) | 1
	})
	return p, nil
})

// take makes the print of a window. It belongs in a secret.Do.
func (p *printer) take(to *print, w *window) {
	p.schedule.Fingerprint((*[aes256.BlockSize]byte)(&to.strong), (*[aes256.BlockSize]byte)(w))
	to.sieve = uint32(head(w[:]) * p.multiplier >> (64 - sieveBits))
}
