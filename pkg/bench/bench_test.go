package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"testing"
	"unsafe"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/xts"
)

// TestRows: every combination once, none with a run shorter than a sector.
func TestRows(t *testing.T) {
	type job struct {
		op          string
		sector, run int
	}
	want := map[job]int{}
	for _, op := range []string{"encrypt", "decrypt"} {
		for _, size := range []int{512, 4096, 65536, 1048576} {
			want[job{op, 512, size}]++
			if size > 512 {
				want[job{op, 4096, size}]++
			}
		}
	}
	for _, row := range rowsOf("x") {
		if want[job{row.Op, row.SectorSize, row.RunBytes}]--; row.Impl != "x" {
			t.Errorf("%+v", row)
		}
	}
	for j, left := range want {
		if left != 0 {
			t.Errorf("%+v: %d too few", j, left)
		}
	}
}

// TestCipher measures for real, once: each implementation's rows, in the order of Implementations, and fields as documented.
func TestCipher(t *testing.T) {
	told := 0
	report, err := Cipher(context.Background(), Options{Rounds: 1, Progress: func(done, total int) { told = total - done }})
	if err != nil {
		t.Fatal(err)
	}
	if want := len(Implementations()) * len(rowsOf("")); len(report.Rows) != want || told != 0 {
		t.Errorf("%d rows, want %d, and %d were left", len(report.Rows), want, told)
	}
	var impls []string
	for _, row := range report.Rows {
		impls = append(impls, row.Impl)
		if row.BytesPerSecond < 1e5 || (row.OfCeiling == nil) != (len(report.Ceilings) == 0) {
			t.Errorf("%+v", row)
		}
	}
	if impls = slices.Compact(impls); !slices.Equal(impls, Implementations()) {
		t.Errorf("measured %q of %q", impls, Implementations())
	}
	text, err := json.Marshal(report.Rows[0])
	if err != nil || !regexp.MustCompile(`^\{"impl":"\w+","op":"encrypt","sector_size":512,"run_bytes":512,"bytes_per_second":\d+,"of_ceiling":(\d\.?\d*|null)\}$`).Match(text) {
		t.Errorf("%s, %v", text, err)
	}
}

// TestInterrupted: nothing is reported of a run that did not end.
func TestInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	report, err := Cipher(ctx, Options{Rounds: 1})
	if refusal.CodeOf(err) != refusal.Failed || err.Error() != "bench: interrupted" || report.Rows != nil {
		t.Errorf("%v, %d rows", err, len(report.Rows))
	}
}

// TestSubject: what is timed is the row's work on the whole run, at the start of a page, and nothing behind it.
func TestSubject(t *testing.T) {
	s, err := newSubject()
	if err != nil {
		t.Fatal(err)
	}
	defer s.destroy()
	if uintptr(unsafe.Pointer(&s.data[0]))%4096 != 0 || len(s.data) != 1<<20 {
		t.Errorf("%d bytes at %p", len(s.data), s.data)
	}
	for _, impl := range xts.Implementations() {
		for _, r := range s.tasks(impl) {
			if testing.Short() && r.row.RunBytes > 65536 {
				continue // the race detector makes the portable code a hundred times slower
			}
			want := slices.Clone(s.data)
			run, sectors := want[:r.row.RunBytes], uint64(r.row.RunBytes/512)
			for i := range uint64(2) {
				if r.row.Op == "encrypt" {
					s.cipher.Encrypt(run, run, r.row.SectorSize, i*sectors)
				} else {
					s.cipher.Decrypt(run, run, r.row.SectorSize, i*sectors)
				}
			}
			if r.run(2); !bytes.Equal(s.data, want) || r.size != r.row.RunBytes {
				t.Errorf("%+v, %d bytes: not what two calls do", r.row, r.size)
			}
		}
	}
}
