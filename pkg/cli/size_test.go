package cli

import (
	"testing"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/refusal"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"10G": 10 << 30, "10GiB": 10 << 30, "10 GiB": 10 << 30, "10g": 10 << 30, "10GB": 10 << 30, "512": 512, "512B": 512,
		"1.5T": 3 << 39, "0.5K": 512, "1P": 1 << 50, "1024T": 1 << 50, "1125899906842624": 1 << 50, "1125899906842112": 1<<50 - 512,
	} {
		if got, err := parseSize(&cobra.Command{}, text, 512); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "0G", "-1", "-1G", "511", "513", "1.3K", "G", "10X", "10Gi", "10 ", " 10", "1e3", "0x200", "inf", "nan", "1_024", "1,5G", "10G10",
		"1125899906843136", "2P", "9223372036854775808", "99999999999999999999999999", "18446744073709551616", "9999999999999999P", "1024.5.1",
	} {
		if got, err := parseSize(&cobra.Command{}, text, 512); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%q was taken as %d: %v", text, got, err)
		}
	}
}

// FuzzParseSize: a size that is taken is one that a disk can have.
func FuzzParseSize(f *testing.F) {
	seeds := []string{"10G", "1.5T", "512", "9223372036854775807", "1125899906842624", "0.0000001P", "1e9"}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, sector := range []int64{minSector, maxSector} {
			n, err := parseSize(&cobra.Command{}, text, sector)
			switch {
			case err != nil && refusal.CodeOf(err) != refusal.Usage:
				t.Fatalf("%q: %v", text, err)
			case err == nil && (n <= 0 || n > maxSize || n%sector != 0):
				t.Fatalf("%q was taken as %d", text, n)
			}
		}
	})
}

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 512: "512 B", 10 << 30: "10 GiB", 3 << 29: "1.5 GiB", 1 << 50: "1 PiB"} {
		if got := humanSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
