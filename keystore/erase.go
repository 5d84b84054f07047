package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
)

// The erase file holds what a log-structured catalog can't: bytes that are overwritten in place. Each CMK's erase
// key lies in a pair of equal slots; pair 0 is the header.
const (
	slotSize    = 4096
	pairSize    = 2 * slotSize
	eraseMagic  = "NBDCERAS"
	eraseFormat = 1
	slotMagic   = "SLOT"
	slotKeyAt   = 4 + 16
	slotKeyEnd  = slotKeyAt + keySize
	slotSumAt   = slotSize - 4
)

var (
	errSlot      = errors.New("keystore: erase slot is damaged")
	errSlotEmpty = errors.New("keystore: erase slot is empty")
)

// eraseSlot is why slots of the erase file are in memory.
var eraseSlot = secret.Purpose{Kind: "erase", For: "reading or writing an erase slot"}

// erasePurpose is why a CMK's erase key is in memory.
func erasePurpose(cmk uuid.UUID) secret.Purpose {
	return secret.Purpose{Kind: "erase", ID: cmk.String(), For: "one wrap or unwrap"}
}

// slotSum is CRC-32C over the store, the pair's number and the slot, so that a slot serves nowhere else.
func slotSum(store uuid.UUID, pair int64, slot []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, store[:])
	sum = crc32.Update(sum, table, binary.BigEndian.AppendUint64(nil, uint64(pair)))
	return crc32.Update(sum, table, slot[:slotSumAt])
}

// fillSlot lays a slot into b; its erase key is there already.
func fillSlot(b []byte, store uuid.UUID, pair int64, cmk uuid.UUID) {
	copy(b, slotMagic)
	copy(b[4:], cmk[:])
	binary.BigEndian.PutUint32(b[slotSumAt:], slotSum(store, pair, b))
}

// parseSlot tells whose slot b is.
func parseSlot(b []byte, store uuid.UUID, pair int64) (cmk uuid.UUID, err error) {
	if allZero(b) {
		return cmk, errSlotEmpty
	}
	if string(b[:4]) != slotMagic || binary.BigEndian.Uint32(b[slotSumAt:]) != slotSum(store, pair, b) || !allZero(b[slotKeyEnd:slotSumAt]) {
		return cmk, errSlot
	}
	copy(cmk[:], b[4:])
	return cmk, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func eraseHeader(store uuid.UUID) []byte {
	b := make([]byte, pairSize)
	copy(b, eraseMagic)
	binary.BigEndian.PutUint32(b[8:], eraseFormat)
	copy(b[12:], store[:])
	binary.BigEndian.PutUint32(b[slotSumAt:], crc32.Checksum(b[:slotSumAt], crc32.MakeTable(crc32.Castagnoli)))
	copy(b[slotSize:], b[:slotSize])
	return b
}

func checkEraseHeader(b []byte, store uuid.UUID) error {
	sum := crc32.Checksum(b[:slotSumAt], crc32.MakeTable(crc32.Castagnoli))
	switch {
	case string(b[:8]) != eraseMagic || binary.BigEndian.Uint32(b[slotSumAt:]) != sum:
		return fmt.Errorf("%w: the header", errSlot)
	case binary.BigEndian.Uint32(b[8:]) != eraseFormat:
		return fmt.Errorf("keystore: erase file has version %d, this build reads version %d", binary.BigEndian.Uint32(b[8:]), eraseFormat)
	case uuid.UUID(b[12:28]) != store:
		return fmt.Errorf("keystore: erase file is of store %s, not %s", uuid.UUID(b[12:28]), store)
	}
	return nil
}

// eraseFile is the open file. Its lock covers which pairs are free.
type eraseFile struct {
	f     *os.File
	store uuid.UUID
	mu    sync.Mutex
	pairs int64
	free  []int64
}

func createErase(path string, store uuid.UUID) error {
	return replaceFile(path, eraseHeader(store))
}

func openErase(path string, store uuid.UUID) (*eraseFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	e := &eraseFile{f: f, store: store}
	if err := e.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return e, nil
}

// load reads the header and finds the free pairs. A file that ends inside a pair was cut, or was being grown when
// the power went: the part belongs to no CMK that a record names, and is not used.
func (e *eraseFile) load() error {
	st, err := e.f.Stat()
	if err != nil {
		return err
	}
	e.pairs = (st.Size() + pairSize - 1) / pairSize
	head := make([]byte, slotSize)
	var bad error
	for n := range int64(2) {
		if _, err := e.f.ReadAt(head, n*slotSize); err != nil {
			bad = fmt.Errorf("%w: the header: %w", errSlot, err)
		} else if bad = checkEraseHeader(head, e.store); bad == nil {
			break
		}
	}
	if bad != nil {
		return bad
	}
	return e.findFree()
}

// findFree finds the pairs that are zero, many at a time: there may be tens of thousands.
func (e *eraseFile) findFree() error {
	const atOnce = 7 // what fits key memory at once, with room for others
	buf, err := secret.Work(atOnce*pairSize, eraseSlot)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer buf.Destroy()
	for pair := int64(1); pair < e.pairs; pair += atOnce {
		b := buf.Bytes()[:pairSize*min(atOnce, e.pairs-pair)]
		clear(b)
		if _, err := e.f.ReadAt(b, pair*pairSize); err != nil && err != io.EOF {
			return fmt.Errorf("keystore: read erase slots from %d on: %w", pair, err)
		}
		secret.Do(func() {
			for at := int64(0); len(b) > 0; at++ {
				if allZero(b[:pairSize]) {
					e.free = append(e.free, pair+at)
				}
				b = b[pairSize:]
			}
		})
	}
	return nil
}

// each reports every pair but the header: its CMK, and an error where a copy is not good.
func (e *eraseFile) each(fn func(pair int64, cmk uuid.UUID, err error)) error {
	buf, err := secret.Work(pairSize, eraseSlot)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer buf.Destroy()
	for pair := int64(1); pair < e.pairs; pair++ {
		b := buf.Bytes()
		clear(b)
		if _, err := e.f.ReadAt(b, pair*pairSize); err != nil && err != io.EOF {
			return fmt.Errorf("keystore: read erase slot %d: %w", pair, err)
		}
		var first, second uuid.UUID
		var errA, errB error
		secret.Do(func() {
			first, errA = parseSlot(b[:slotSize], e.store, pair)
			second, errB = parseSlot(b[slotSize:], e.store, pair)
		})
		switch {
		case errA != nil && errB == nil:
			fn(pair, second, errSlot)
		case errA == nil && (errB != nil || first != second):
			fn(pair, first, errSlot)
		default:
			fn(pair, first, errA)
		}
	}
	return nil
}

// allocate makes an erase key for a CMK, durably. The key is the caller's to destroy.
func (e *eraseFile) allocate(cmk uuid.UUID) (pair int64, key *secret.Key, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	pair = e.pairs
	if len(e.free) > 0 {
		pair = e.free[0]
	}
	if key, err = secret.RandomWork(keySize, erasePurpose(cmk)); err != nil {
		return 0, nil, fmt.Errorf("keystore: %w", err)
	}
	if err := e.write(pair, cmk, key); err != nil {
		key.Destroy()
		return 0, nil, fmt.Errorf("keystore: write erase slot %d: %w", pair, err)
	}
	if len(e.free) > 0 {
		e.free = e.free[1:]
	} else {
		e.pairs++
	}
	return pair, key, nil
}

func (e *eraseFile) write(pair int64, cmk uuid.UUID, key *secret.Key) error {
	buf, err := secret.Work(pairSize, eraseSlot)
	if err != nil {
		return err
	}
	defer buf.Destroy()
	b := buf.Bytes()
	secret.Do(func() {
		move(b[slotKeyAt:], key.Bytes())
		fillSlot(b[:slotSize], e.store, pair, cmk)
		move(b[slotSize:], b[:slotSize])
	})
	if _, err := e.f.WriteAt(b, pair*pairSize); err != nil {
		return err
	}
	return e.f.Sync()
}

// read reads the erase key of a CMK from whichever copy is good.
func (e *eraseFile) read(pair int64, cmk uuid.UUID) (*secret.Key, error) {
	buf, err := secret.Work(pairSize, eraseSlot)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer buf.Destroy()
	if pair < 1 {
		return nil, fmt.Errorf("%w: there is no slot %d", errSlot, pair)
	}
	if _, err := e.f.ReadAt(buf.Bytes(), pair*pairSize); err != nil && err != io.EOF {
		return nil, fmt.Errorf("keystore: read erase slot %d: %w", pair, err)
	}
	key, err := secret.Work(keySize, erasePurpose(cmk))
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	found := false
	secret.Do(func() { found = e.pick(key.Bytes(), buf.Bytes(), pair, cmk) })
	if !found {
		key.Destroy()
		return nil, fmt.Errorf("%w: slot %d holds no erase key of CMK %s", errSlot, pair, cmk)
	}
	return key, nil
}

// pick copies the erase key of a CMK to dst, from whichever copy of its slot is good.
func (e *eraseFile) pick(dst, slots []byte, pair int64, cmk uuid.UUID) bool {
	for _, slot := range [][]byte{slots[:slotSize], slots[slotSize:]} {
		if owner, err := parseSlot(slot, e.store, pair); err == nil && owner == cmk {
			move(dst, slot[slotKeyAt:slotKeyEnd])
			return true
		}
	}
	return false
}

// keepFor holds the pairs that records name out of use for others: in a file that was cut or is an older one, they
// would look free, and a new key in the place of a lost one would be erased with it.
func (e *eraseFile) keepFor(named map[int64]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for pair := range named {
		e.pairs = max(e.pairs, pair+1)
	}
	e.free = slices.DeleteFunc(e.free, func(pair int64) bool { return named[pair] })
}

// destroy takes back a pair that was allocated to a CMK just now. A pair of another CMK stays.
func (e *eraseFile) destroy(pair int64, cmk uuid.UUID) error {
	key, err := e.read(pair, cmk)
	if err != nil {
		return err
	}
	key.Destroy()
	if err := e.wipe(pair, cmk); err != nil {
		return err
	}
	e.release(pair)
	return nil
}

// wipe overwrites both copies of a CMK's pair, damaged ones too, and waits until the disk has them so. What is zero already is
// written again: zeros that a killed process has left may not be on the disk yet. A copy that is another CMK's is left alone.
func (e *eraseFile) wipe(pair int64, cmk uuid.UUID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	buf, err := secret.Work(pairSize, eraseSlot)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer buf.Destroy()
	_, err = e.f.ReadAt(buf.Bytes(), pair*pairSize)
	for at := 0; (err == nil || err == io.EOF) && at < pairSize; at += slotSize {
		var owner uuid.UUID
		var bad error
		secret.Do(func() { owner, bad = parseSlot(buf.Bytes()[at:at+slotSize], e.store, pair) })
		if bad == nil && owner != cmk {
			continue
		}
		_, err = e.f.WriteAt(make([]byte, slotSize), pair*pairSize+int64(at))
	}
	if err == nil || err == io.EOF {
		err = e.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("keystore: destroy erase slot %d: %w", pair, err)
	}
	return nil
}

// release lets a pair that was wiped be used again; 0 is none.
func (e *eraseFile) release(pair int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if pair > 0 && !slices.Contains(e.free, pair) {
		e.free = append(e.free, pair)
	}
}

func (e *eraseFile) close() error { return e.f.Close() }
