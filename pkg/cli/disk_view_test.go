package cli

import (
	"fmt"
	"strings"
	"testing"
)

// A person is shown few segments by name, and of many which they are and how many.
func TestSegmentsOfALargeDisk(t *testing.T) {
	var paths []string
	for i := range 64 {
		paths = append(paths, fmt.Sprintf("/pool/l/data.%04d", i))
	}
	var few, many strings.Builder
	printSegments(&few, paths[:4])
	printSegments(&many, paths)
	if strings.Count(few.String(), "\n") != 4 || few.String() != "\t"+strings.Join(paths[:4], "\n\t")+"\n" {
		t.Errorf("4 segments: %q", few.String())
	}
	if many.String() != "\t/pool/l/data.0000\n\t… to data.0063 (64 files)\n" {
		t.Errorf("64 segments: %q", many.String())
	}
}
