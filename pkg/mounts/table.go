// Package mounts mounts file systems on this host and takes them away again, by the programs that people do it with: mount and umount, and
// nbdfuse with fusermount3 where there is no device. What is mounted where, the kernel says. It decides nothing about who may do so.
package mounts

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Mounted is a file system that is mounted.
type Mounted struct {
	Dir, Kind, Source string
	// Owner is the user that a FUSE file system was mounted by, nil for all others.
	Owner *uint32
}

// At is what is mounted at a directory, the topmost where there are several; nil where nothing is.
func At(dir string) (*Mounted, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("what is mounted can't be read: %w", err)
	}
	defer file.Close()
	return at(file, dir)
}

func at(table io.Reader, dir string) (*Mounted, error) {
	list, err := mountinfo.GetMountsFromReader(table, func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != dir, false })
	if err != nil {
		return nil, fmt.Errorf("what is mounted can't be read: %w", err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	top := list[len(list)-1]
	m := &Mounted{Dir: top.Mountpoint, Kind: top.FSType, Source: top.Source}
	if m.IsFuse() {
		m.Owner = ownerIn(top.VFSOptions)
	}
	return m, nil
}

// IsFuse tells a file system that a program serves.
func (m *Mounted) IsFuse() bool { return m.Kind == "fuse" || strings.HasPrefix(m.Kind, "fuse.") }

// ownerIn is the user that the options of a FUSE file system name.
func ownerIn(options string) *uint32 {
	for option := range strings.SplitSeq(options, ",") {
		if id, is := strings.CutPrefix(option, "user_id="); is {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				owner := uint32(n)
				return &owner
			}
		}
	}
	return nil
}
