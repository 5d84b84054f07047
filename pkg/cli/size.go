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

// parseSize reads a disk's size: binary multiples (10G is 10 GiB), or plain bytes. It is a multiple of sector.
func parseSize(cmd *cobra.Command, text string, sector int64) (int64, error) {
	// The library would take more: numbers in scientific notation, hexadecimal fractions.
	if strings.HasPrefix(text, "-") {
		return 0, usage(cmd, "--size %s is negative", text)
	}
	if !regexp.MustCompile(`^[0-9]+(\.[0-9]+)? ?([KMGTPkmgtp]([iI]?[bB])?|[bB])?$`).MatchString(text) {
		return 0, usage(cmd, "--size %q is not a size: write 10G, 512M, 1.5T or a number of bytes", text)
	}
	size, err := units.RAMInBytes(text)
	switch {
	// A number past int64 may come out as anything; all of them have more digits than any size.
	case err != nil || size > maxSize || size < 0 || len(text) > 24:
		return 0, usage(cmd, "--size %s is more than a disk can have: %s", text, humanSize(maxSize))
	case size == 0:
		return 0, usage(cmd, "--size %s: a disk can't be empty", text)
	case size%sector != 0:
		return 0, usage(cmd, "--size %s is %d bytes, which is not a multiple of the sector size %d", text, size, sector)
	}
	return size, nil
}

func humanSize(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"})
}

// exactSize tells a size both ways.
func exactSize(n int64) string { return fmt.Sprintf("%s (%d bytes)", humanSize(n), n) }
