package volume_test

import (
	"bytes"
	"fmt"
)

// sectorUnit is what storage writes whole.
const sectorUnit = 512

// content is what a disk holds: what was answered, and what else each sector may hold once the power was cut.
type content struct {
	now []byte
	// since has for each sector that changed since it was last known durable all that it held, from then on.
	since map[int][][]byte
}

func newContent(of []byte, size int64) *content {
	c := &content{now: make([]byte, size), since: map[int][][]byte{}}
	copy(c.now, of)
	return c
}

func (c *content) sector(i int) []byte { return c.now[i*sectorUnit : (i+1)*sectorUnit] }

// change gives [off, off+len(p)) new content, which may or may not survive.
func (c *content) change(p []byte, off int64) {
	first, last := int(off)/sectorUnit, (int(off)+len(p)-1)/sectorUnit
	for i := first; i <= last; i++ {
		if c.since[i] == nil {
			c.since[i] = [][]byte{bytes.Clone(c.sector(i))}
		}
	}
	copy(c.now[off:], p)
	for i := first; i <= last; i++ {
		c.since[i] = append(c.since[i], bytes.Clone(c.sector(i)))
	}
}

// settle makes what stands in the sectors inside of [off, off+n) durable.
func (c *content) settle(off, n int64) {
	for i := int(off+sectorUnit-1) / sectorUnit; i < int(off+n)/sectorUnit; i++ {
		delete(c.since, i)
	}
}

func (c *content) settleAll() { clear(c.since) }

func (c *content) grow(size int64) { c.now = append(c.now, make([]byte, size-int64(len(c.now)))...) }

// allows tells what speaks against what came back after a cut.
func (c *content) allows(got []byte) error {
	if len(got) != len(c.now) {
		return fmt.Errorf("%d bytes came back of %d", len(got), len(c.now))
	}
	for i := range len(got) / sectorUnit {
		is := got[i*sectorUnit:][:sectorUnit]
		allowed := bytes.Equal(is, c.sector(i))
		for _, was := range c.since[i] {
			allowed = allowed || bytes.Equal(is, was)
		}
		if !allowed {
			return fmt.Errorf("sector %d came back as none of its %d contents since it was durable: %s", i, max(1, len(c.since[i])), differs(is, c.sector(i)))
		}
	}
	return nil
}

// take has what came back be what is there.
func (c *content) take(got []byte) {
	c.now = bytes.Clone(got)
	c.settleAll()
}

// differs tells where what is read first differs from what should be; empty where it does not.
func differs(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, not %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d (block %d) is %#x, not %#x", i, i/4096, got[i], want[i])
		}
	}
	return ""
}
