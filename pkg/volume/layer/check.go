package layer

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Finding is one thing that Check found. Lost tells whether data is gone; otherwise a spare copy is damaged.
type Finding struct {
	Where string
	What  string
	Lost  bool
}

// Check reads everything that can be checked without a key: both copies of the header, both pages of every record, and
// that no data unit of an encrypted layer is all zeros. progress is told how many bytes of the disk are done. It returns
// how many blocks of data it read.
func (l *Layer) Check(ctx context.Context, size int64, found func(Finding), progress func(done int64)) (blocks int64, err error) {
	_, damaged, err := readHeader(l.mapVol)
	if err != nil {
		return 0, err
	}
	if damaged != nil {
		found(Finding{Where: "header", What: "one of two copies is damaged"})
	}
	for index := int64(0); ; index++ {
		if index, err = l.nextRecord(index); err != nil || index >= records(size) {
			return blocks, err
		}
		if err := ctx.Err(); err != nil {
			return blocks, err
		}
		blocks += l.checkRecord(index, size, found)
		progress(min(size, (index+1)*bytesPerRecord))
	}
}

// nextRecord is the first record from index on that may have been written; the map of a large disk is mostly a hole.
func (l *Layer) nextRecord(index int64) (int64, error) {
	at := pageAt(index, 1)
	if at >= l.mapVol.Size() {
		return index, nil
	}
	next, err := l.mapVol.NextData(at)
	return max(index, (next-recordsAt)/recordPairSize), err
}

func (l *Layer) checkRecord(index, size int64, found func(Finding)) (blocks int64) {
	where := fmt.Sprintf("map record %d (disk bytes %d to %d)", index, index*bytesPerRecord,
		min(size, (index+1)*bytesPerRecord))
	l.mapWriting.Lock()
	v, err := l.blocks.read(index)
	l.mapWriting.Unlock()
	if err != nil {
		found(Finding{Where: where, What: err.Error(), Lost: true})
		return 0
	}
	if v.stale {
		found(Finding{Where: where, What: "the page that is no longer used is damaged"})
	}
	for i := 0; i < recordStates; {
		n := v.states.run(i, recordStates)
		if v.states.get(i) == Data {
			l.checkData((index*recordStates+int64(i))*BlockSize, int64(n)*BlockSize, size, found)
			blocks += int64(n)
		}
		i += n
	}
	return blocks
}

const checkStep = 1 << 20

// checkData reads blocks that the map calls Data. States past the end of the disk are 0, so Data there is damage.
func (l *Layer) checkData(off, n, size int64, found func(Finding)) {
	if off+n > DataSize(size) {
		found(Finding{Where: fmt.Sprintf("bytes %d to %d", off, off+n), What: "the map goes past the end", Lost: true})
		return
	}
	buf := make([]byte, min(n, checkStep))
	for end := off + n; off < end; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), end-off)]
		l.checkPiece(buf, off, found)
	}
}

func (l *Layer) checkPiece(buf []byte, off int64, found func(Finding)) {
	defer l.Lock(off, int64(len(buf)), false).Unlock()
	if err := l.ReadAt(buf, off, true); err != nil {
		found(Finding{Where: fmt.Sprintf("bytes %d to %d", off, off+int64(len(buf))), What: err.Error(), Lost: true})
		return
	}
	for at := 0; l.Encrypted && at < len(buf); at += l.SectorSize {
		if !IsZero(buf[at : at+l.SectorSize]) {
			continue
		}
		// While we read, a block may have been given up for good reason; only what is still Data is damage.
		if state, _, err := l.Run(off+int64(at), off+int64(at)+1, true); err == nil && state == Data {
			found(Finding{Where: fmt.Sprintf("sector at byte %d", off+int64(at)), Lost: true,
				What: "its ciphertext is gone: zeros where the map says data"})
		}
	}
}

// IsZero tells whether p is all zeros. Ciphertext is not, and shows it in its first bytes.
func IsZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
