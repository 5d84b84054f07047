package layer

import (
	"context"
	"encoding/binary"
	"math/bits"
)

// Usage is what a layer holds, in bytes of whole blocks: data, and space that is reserved for it.
type Usage struct{ Data, Reserved int64 }

func (u *Usage) add(other Usage) {
	u.Data += other.Data
	u.Reserved += other.Reserved
}

// usage counts the blocks of a record, 32 at a time.
func (s *states) usage() (u Usage) {
	const low = 0x5555555555555555
	for i := 0; i < len(s); i += 8 {
		w := binary.LittleEndian.Uint64(s[i:])
		u.Data += int64(bits.OnesCount64(w&^(w>>1)&low)) * BlockSize
		u.Reserved += int64(bits.OnesCount64(w&(w>>1)&low)) * BlockSize
	}
	return u
}

// Usage counts by the map: what was changed in memory counts as it is there, the rest is read and not kept.
func (l *Layer) Usage(ctx context.Context) (total Usage, err error) {
	counted := l.blocks.inMemory()
	for index := range counted {
		u, _ := l.blocks.usage(index) // once in memory a record stays there
		total.add(u)
	}
	for index := int64(0); ; index++ {
		if index, err = l.nextRecord(index); err != nil || pageAt(index, 1) >= l.mapVol.Size() {
			return total, err
		}
		if err := ctx.Err(); err != nil {
			return total, err
		}
		if counted[index] {
			continue
		}
		u, err := l.recordUsage(index)
		if err != nil {
			return total, err
		}
		total.add(u)
	}
}

// recordUsage counts a record as it stands in the map, where it has not come into memory meanwhile.
func (l *Layer) recordUsage(index int64) (Usage, error) {
	l.mapWriting.Lock()
	defer l.mapWriting.Unlock()
	if u, known := l.blocks.usage(index); known {
		return u, nil
	}
	v, err := l.blocks.read(index)
	if err != nil {
		return Usage{}, err
	}
	return v.states.usage(), nil
}
