package chain

import (
	"bytes"
	"fmt"
	"io"
)

// backwardStep is how much Backward reads at a time.
const backwardStep = 64 << 10

// Backward hands the lines of a log to visit, the last first, until visit wants no more. Size is where the log ends, right after a
// line feed. Nothing is checked but that there are lines.
func Backward(log io.ReaderAt, size int64, visit func(line []byte, at int64) (more bool, err error)) error {
	var rest []byte // the end of a line whose beginning was not read yet
	for at := size; at > 0; {
		n := min(at, backwardStep)
		at -= n
		block := make([]byte, n, int(n)+len(rest))
		if _, err := log.ReadAt(block, at); err != nil {
			return fmt.Errorf("audit: read: %w", err)
		}
		block = append(block, rest...)
		for {
			start := bytes.LastIndexByte(block[:max(0, len(block)-1)], '\n') + 1
			if start == 0 && at > 0 {
				break
			}
			if len(block) == 0 || block[len(block)-1] != '\n' {
				return fmt.Errorf("audit: byte %d does not end a line", at+int64(len(block)))
			}
			more, err := visit(block[start:len(block)-1], at+int64(start))
			if err != nil || !more {
				return err
			}
			if block = block[:start]; start == 0 {
				break
			}
		}
		if rest = block; len(rest) > MaxLine {
			return fmt.Errorf("audit: the line that ends at byte %d is too long", at+int64(len(rest)))
		}
	}
	return nil
}
