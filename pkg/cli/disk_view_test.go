package cli

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
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

// The export of a server's disk has no URI to tell; that it is the server's is told.
func TestAttachedForAServer(t *testing.T) {
	var b strings.Builder
	since := moment0()
	d := control.Disk{Server: &control.DiskServer{Name: "web1", Role: control.SystemDisk}, Attachments: []control.Attachment{{By: "alice", Since: since, Clients: 1}}}
	printDisk(&b, d)
	if !strings.Contains(b.String(), "attached     for server web1\n             by alice since") {
		t.Errorf("%s", b.String())
	}
}
