package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// maxSize is the largest disk of the format (docs/disk-format.md).
const maxSize = int64(1) << 50

// isSize is how a size is written. The library would take more: numbers in scientific notation, hexadecimal fractions.
var isSize = regexp.MustCompile(`^[0-9]+(\.[0-9]+)? ?([KMGTPkmgtp]([iI]?[bB])?|[bB])?$`)

// parseSize reads a disk's size: binary multiples (10G is 10 GiB), or plain bytes. It is a multiple of sector.
func parseSize(cmd *cobra.Command, text string, sector int64) (int64, error) {
	return parseSizeOf(cmd, "--size", text, sector)
}

// parseSizeOf reads the size that what says.
func parseSizeOf(cmd *cobra.Command, what, text string, sector int64) (int64, error) {
	if strings.HasPrefix(text, "-") {
		return 0, usage(cmd, "%s %s is negative", what, text)
	}
	if !isSize.MatchString(text) {
		return 0, usage(cmd, "%s %q is not a size: write 10G, 512M, 1.5T or a number of bytes", what, text)
	}
	size, err := units.RAMInBytes(text)
	switch {
	// A number past int64 may come out as anything; all of them have more digits than any size.
	case err != nil || size > maxSize || size < 0 || len(text) > 24:
		return 0, usage(cmd, "%s %s is more than a disk can have: %s", what, text, humanSize(maxSize))
	case size == 0:
		return 0, usage(cmd, "%s %s: a disk can't be empty", what, text)
	case size%sector != 0:
		return 0, usage(cmd, "%s %s is %d bytes, which is not a multiple of the sector size %d", what, text, size, sector)
	}
	return size, nil
}

// parseMemory reads how much memory a machine has.
func parseMemory(cmd *cobra.Command, text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if !isSize.MatchString(text) || len(text) > 24 || err != nil || n < 0 || n > maxSize {
		return 0, usage(cmd, "--memory %q is not a size: write 512M, 2G or a number of bytes", text)
	}
	if n == 0 || n%(1<<20) != 0 {
		return 0, usage(cmd, "--memory %s is not in whole MiB", text)
	}
	return n, nil
}

func humanSize(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
}

// exactSize tells a size both ways.
func exactSize(n int64) string { return fmt.Sprintf("%s (%d bytes)", humanSize(n), n) }
