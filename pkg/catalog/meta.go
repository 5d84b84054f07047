package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
)

// The store's own records. Every commit writes the first two kinds.
const (
	metaKey       = ownPrefix + "meta"
	requestPrefix = ownPrefix + "request/"
	// orderPrefix lists the requests by revision, so that each commit finds the one that has become too old.
	orderPrefix = ownPrefix + "requests/"
)

// keptRequests is how many commits Outcome remembers.
const keptRequests = 10_000

const maxRequest = 128

func checkRequest(id string) error {
	if id == "" || len(id) > maxRequest {
		return fmt.Errorf("catalog: a request id of %d bytes, 1 to %d are allowed", len(id), maxRequest)
	}
	return nil
}

func requestKey(id string) string { return requestPrefix + id }

func orderKey(revision uint64) string { return fmt.Sprintf("%s%016x", orderPrefix, revision) }

// meta is the store's account of itself: its revision, how many pairs it holds, and the sum of their hashes. The
// sum does not depend on order, so a commit updates it from what it changes alone; opening counts everything
// again and finds each pair that is missing, altered, or back from the dead.
type meta struct {
	revision uint64
	count    uint64
	sum      sum
}

const (
	metaVersion = 1
	metaLen     = 1 + 8 + 8 + 32
)

func (m meta) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, m.revision)
	b = binary.BigEndian.AppendUint64(b, m.count)
	for _, limb := range m.sum {
		b = binary.BigEndian.AppendUint64(b, limb)
	}
	return b
}

func decodeMeta(b []byte) (m meta, err error) {
	if len(b) != metaLen || b[0] != metaVersion {
		return m, fmt.Errorf("%w: the catalog's account of itself (version %d, %d bytes) is none that this build reads",
			ErrDamaged, append(b, 0)[0], len(b))
	}
	m.revision = binary.BigEndian.Uint64(b[1:])
	m.count = binary.BigEndian.Uint64(b[9:])
	for i := range m.sum {
		m.sum[i] = binary.BigEndian.Uint64(b[17+8*i:])
	}
	return m, nil
}

// readMeta reads the account; a store without one is empty.
func readMeta(s snapshot) (meta, error) {
	b, err := s.get(metaKey)
	if err != nil {
		return meta{}, ignoreNotFound(err)
	}
	return decodeMeta(b)
}

// sum is a number of 256 bits, lowest limb first.
type sum [4]uint64

// pairSum hashes one pair.
func pairSum(key, value []byte) (s sum) {
	text := binary.BigEndian.AppendUint32(make([]byte, 0, 1<<10), uint32(len(key)))
	b := sha256.Sum256(append(append(text, key...), value...))
	for i := range s {
		s[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return s
}

func (s *sum) add(o sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *sum) sub(o sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

func (m *meta) enter(key string, value []byte) {
	m.count++
	m.sum.add(pairSum([]byte(key), value))
}

func (m *meta) strike(key string, value []byte) {
	m.count--
	m.sum.sub(pairSum([]byte(key), value))
}

// account adds to a commit what the store keeps about it: the request, the end of the oldest one, the meta record.
func account(s snapshot, changes []change, request string) ([]change, error) {
	m, err := readMeta(s)
	if err != nil {
		return nil, err
	}
	m.revision++
	changes = append(changes,
		change{requestKey(request), binary.BigEndian.AppendUint64(nil, m.revision)},
		change{orderKey(m.revision), []byte(request)})
	if m.revision > keptRequests {
		old, err := forget(s, m.revision-keptRequests, request)
		if err != nil {
			return nil, err
		}
		changes = append(changes, old...)
	}
	return tally(s, m, changes)
}

// tally brings the account up to date with the changes and adds it to them.
func tally(s snapshot, m meta, changes []change) ([]change, error) {
	for _, c := range changes {
		old, err := s.get(c.key)
		if err == nil {
			m.strike(c.key, old)
		} else if ignoreNotFound(err) != nil {
			return nil, err
		}
		if c.value != nil {
			m.enter(c.key, c.value)
		}
	}
	return append(changes, change{metaKey, m.encode()}), nil
}

// forget removes the request of one old revision, unless its id was used again since.
func forget(s snapshot, revision uint64, current string) ([]change, error) {
	id, err := s.get(orderKey(revision))
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	changes := []change{{key: orderKey(revision)}}
	at, err := s.get(requestKey(string(id)))
	if err != nil {
		return changes, ignoreNotFound(err)
	}
	if string(id) != current && len(at) == 8 && binary.BigEndian.Uint64(at) == revision {
		changes = append(changes, change{key: requestKey(string(id))})
	}
	return changes, nil
}

// verify counts every pair of a snapshot and compares with the account. The splits are names between which there is about as much,
// so that all processors have something to do.
func verify(s snapshot, splits []string) (meta, error) {
	want, err := readMeta(s)
	if err != nil {
		return want, err
	}
	parts := make([]meta, len(splits)+1)
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i := range parts {
		from, to := "", ""
		if i > 0 {
			from = splits[i-1]
		}
		if i < len(splits) {
			to = splits[i]
		}
		all.Go(func() { errs[i] = parts[i].countAll(s, from, to) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return want, err
	}
	have := meta{revision: want.revision}
	for _, part := range parts {
		have.count += part.count
		have.sum.add(part.sum)
	}
	if have != want {
		return want, fmt.Errorf("%w: at revision %d it holds %d records where %d were written, or one of them was altered",
			ErrDamaged, want.revision, have.count, want.count)
	}
	return want, nil
}

// countAll enters what is from one name on and before another; an empty one is the end.
func (m *meta) countAll(s snapshot, from, to string) error {
	return s.visit(from, func(key, value []byte) bool {
		if to != "" && string(key) >= to {
			return false
		}
		if string(key) != metaKey {
			m.count++
			m.sum.add(pairSum(key, value))
		}
		return true
	})
}
