package recorder

import (
	"bytes"
	"fmt"
	"syscall"
)

// Marks is a disk to speak to: a line that is written to a sector of it is heard, and the write is answered after that. So what the system on
// the recording disk says in this way, directly, has a place among its writes: other ways to the test would be heard later than they were said.
type Marks func(line string)

// marksSize is room for a sector to each speaker.
const marksSize = 1 << 20

// Size implements nbd.Device.
func (Marks) Size() (int64, error) { return marksSize, nil }

// ReadAt implements nbd.Device: there are only zeros.
func (Marks) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// WriteAt implements nbd.Device.
func (m Marks) WriteAt(p []byte, _ int64) (int, error) {
	line, rest, ok := bytes.Cut(p, []byte("\n"))
	if !ok || len(bytes.Trim(rest, "\x00")) > 0 {
		return 0, fmt.Errorf("recorder: %q is not one line: %w", p, syscall.EINVAL)
	}
	m(string(line))
	return len(p), nil
}

// Sync implements nbd.Device.
func (Marks) Sync() error { return nil }
