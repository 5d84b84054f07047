package cryptdev_test

import (
	"bytes"
	"crypto/aes"
	"errors"
	"fmt"
	"math/rand/v2"
	gosync "sync"
	"syscall"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"golang.org/x/crypto/xts"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

var (
	_ nbd.Device     = (*cryptdev.Device)(nil)
	_ nbd.FUAWriter  = (*cryptdev.Device)(nil)
	_ nbd.Trimmer    = (*cryptdev.Device)(nil)
	_ nbd.Zeroer     = (*cryptdev.Device)(nil)
	_ nbd.BlockSizer = (*cryptdev.Device)(nil)
	_ nbdtest.Full   = (*cryptdev.Device)(nil)
	// go-nbd's server can serve an encrypted disk too.
	_ backend.Backend = (*cryptdev.Device)(nil)
)

func TestIsADevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, encrypted := range []bool{true, false} {
			t.Run(fmt.Sprintf("sector=%d/encrypted=%v", sector, encrypted), func(t *testing.T) {
				nbdtest.RunDevice(t, func(t *testing.T) nbd.Device {
					return newRig(t, files(t), 8*mib, sector, encrypted).open()
				})
			})
		}
	}
	t.Run("over a parent", func(t *testing.T) {
		nbdtest.RunDevice(t, func(t *testing.T) nbd.Device {
			below := newRig(t, files(t), 8*mib, 512, true)
			return newRig(t, below.pool, 8*mib, 512, true).over(below)
		})
	})
}

func files(t *testing.T) pool.Pool {
	t.Helper()
	p, err := pool.OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Rule A1, promise 5: what lies in the data volume opens with an XTS that is not ours, numbered as dm-crypt does.
func TestRuleA1_AnotherXTSReadsTheVolume(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		r := newRig(t, pooltest.NewPower(), 8*mib, unit, true)
		d := r.open()
		want := make([]byte, 64<<10)
		for i := range want {
			want[i] = byte(i / 100)
		}
		const at = 4*mib + 8192
		write(t, d, want, at)
		write(t, d, []byte("unaligned"), at+700)
		copy(want[700:], "unaligned")
		sync(t, d)
		v, err := r.pool.Open(t.Context(), layer.DataName(r.header.ID), true)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := v.ReadAt(got, at); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(got, want[:16]) {
			t.Fatal("plaintext in the data volume")
		}
		other, err := xts.NewCipher(aes.NewCipher, r.key)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(got); i += unit {
			other.Decrypt(got[i:i+unit], got[i:i+unit], uint64(at+i)/512)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d: another XTS reads something else", unit)
		}
	}
}

// The same plaintext under two keys, and at two places under one key, never looks alike.
func TestCiphertextDiffers(t *testing.T) {
	p := pooltest.NewPower()
	seen := map[string]bool{}
	for range 2 {
		r := newRig(t, p, mib, 512, true)
		d := r.open()
		write(t, d, make([]byte, mib), 0)
		v, err := p.Open(t.Context(), layer.DataName(r.header.ID), true)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, mib)
		if _, err := v.ReadAt(buf, 0); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(buf); i += 16 {
			if block := string(buf[i : i+16]); seen[block] {
				t.Fatal("two blocks of zeros look alike")
			} else {
				seen[block] = true
			}
		}
	}
}

// NBD item 13: unaligned requests are served by read-modify-write that never races: 16 KiB at any byte offset, from many
// writers whose ranges touch, and every byte checked.
func TestNBD13_UnalignedNeighbours(t *testing.T) {
	for _, unit := range []int{512, 4096} {
		d := newRig(t, files(t), 16*mib, unit, true).open()
		const writers, each, n = 16, 24, 16<<10 + 7
		var wg gosync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 1))
				for _, i := range rng.Perm(each) {
					at := int64((i*writers+w)*n + 3)
					if _, err := d.WriteAt(pattern(byte(w+1), n), at); err != nil {
						t.Error(err)
					}
					if i%8 == 0 && d.Sync() != nil {
						t.Error("sync failed")
					}
				}
			})
		}
		wg.Wait()
		for i := range writers * each {
			expect(t, d, int64(i*n+3), pattern(byte(i%writers+1), n))
		}
	}
}

// Readers never see a sector half-way through its read-modify-write: bytes that nobody changes stay what they are.
func TestReadersBesideReadModifyWrite(t *testing.T) {
	d := newRig(t, files(t), mib, 4096, true).open()
	write(t, d, pattern(5, 4096), 0)
	stop := make(chan struct{})
	var wg gosync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := d.WriteAt([]byte{byte(i)}, 100); err != nil {
				t.Error(err)
			}
		}
	})
	reads := 3000
	if testing.Short() {
		reads = 500
	}
	for range reads {
		got := read(t, d, 0, 4096)
		got[100] = 5
		if !bytes.Equal(got, pattern(5, 4096)) {
			t.Error("bytes that nobody wrote have changed")
			break
		}
	}
	close(stop)
	wg.Wait()
}

func TestReadOnly(t *testing.T) {
	r := newRig(t, files(t), mib, 512, true)
	d := cryptdev.New([]cryptdev.Layer{r.layer(layer.Options{ReadOnly: true})}, mib, true)
	for name, err := range map[string]error{
		"write": second(d.WriteAt([]byte{1}, 0)),
		"fua":   second(d.WriteAtFUA([]byte{1}, 0)),
		"trim":  d.TrimAt(0, 4096),
		"zero":  d.ZeroAt(0, 4096, true),
	} {
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Sync(); err != nil {
		t.Errorf("flush of a read-only disk: %v", err)
	}
}

// A disk larger than its parent reads zeros past it.
func TestShorterParent(t *testing.T) {
	below := newRig(t, files(t), mib, 512, true)
	base := below.open()
	write(t, base, pattern(3, mib), 0)
	sync(t, base)
	r := newRig(t, below.pool, 4*mib, 512, true)
	if _, err := layer.Open(t.Context(), below.pool, below.header, below.size, layer.Options{ReadOnly: true}); err == nil {
		t.Fatal("a layer that is open for writing was opened again")
	}
	below.closeAll()
	d := r.over(below)
	expect(t, d, mib-4096, append(pattern(3, 4096), pattern(0, 8192)...))
	write(t, d, pattern(9, 100), mib+50)
	expect(t, d, mib, append(append(pattern(0, 50), pattern(9, 100)...), pattern(0, 4096)...))
}

// A disk whose size is not whole blocks has exactly its size, and can be written to its last byte.
func TestOddSize(t *testing.T) {
	const size = 5*4096 + 3*512
	r := newRig(t, files(t), size, 512, true)
	d := r.open()
	write(t, d, pattern(4, 700), size-700)
	expect(t, d, size-4096, append(pattern(0, 4096-700), pattern(4, 700)...))
	for _, err := range []error{second(d.ReadAt(make([]byte, 2), size-1)), second(d.WriteAt(make([]byte, 2), size-1)), d.TrimAt(size-1, 2)} {
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("past the end: %v", err)
		}
	}
	if err := d.TrimAt(5*4096, 3*512); err != nil {
		t.Fatal(err)
	}
	expect(t, d, size-700, pattern(0, 700))
}

// Promise 2 asks that plaintext does not lie about: buffers go back without it, also after a failure.
func TestBuffersHoldNoPlaintext(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	r := newRig(t, faults, 1<<20, 512, true)
	d := r.open()
	buffers := d.Buffers()
	secret := bytes.Repeat([]byte("plain words "), 100)
	write(t, d, secret, 4096+7)
	write(t, d, secret, 4096+7)
	expect(t, d, 4096+7, secret)
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpRead && c.Off > 4096+512 {
			return syscall.EIO // the end of what a write fills up
		}
		return nil
	})
	if _, err := d.WriteAt(secret, 4096+7); !errors.Is(err, syscall.EIO) {
		t.Fatalf("write: %v", err)
	}
	if len(*buffers) == 0 {
		t.Fatal("no buffers were seen")
	}
	for _, b := range *buffers {
		if bytes.Contains(b, []byte("plain words")) {
			t.Error("a buffer went back with plaintext in it")
		}
	}
}
