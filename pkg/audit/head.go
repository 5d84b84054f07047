package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
)

// HeadFile is where the log's head is kept, in the log's folder (docs/keystore-format.md).
const HeadFile = "audit.head"

// MAC authenticates a message under a key that whoever can only write files does not have.
type MAC func(message []byte) ([]byte, error)

// A block of the head file. What changes from one to the next lies in one sector, so that a power cut tears none.
const (
	headBlock   = 4096
	headMagic   = "NBDCHEAD"
	headVersion = 1
	headStore   = len(headMagic) + 4
	headSeq     = headStore + 16
	headHash    = headSeq + 8
	headMAC     = headHash + sha256.Size
	headEnd     = headMAC + sha256.Size
)

// headFile is an open head file. Its two blocks are written in turn.
type headFile struct {
	f     *os.File
	store uuid.UUID
	mac   MAC
	next  int64 // the block that is written next
	// last is what was written last, unsure whether that failed half-way.
	last   Head
	unsure bool
}

// path is where the head of a log lies.
func (c Config) headPath() string { return filepath.Join(filepath.Dir(c.Path), HeadFile) }

// openHead opens the head file; nil where there is none. One that can't be trusted is damage.
func openHead(c Config) (*headFile, error) {
	f, err := os.OpenFile(c.headPath(), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, headDamage(err)
	}
	h := &headFile{f: f, store: c.Store, mac: c.MAC}
	if h.last, h.next, err = h.read(); err != nil {
		return nil, errors.Join(headDamage(err), f.Close())
	}
	return h, nil
}

func headDamage(err error) error {
	return refusal.New(refusal.Damaged, chain.Advice,
		"the audit log's head %s can't be trusted: %w", HeadFile, err)
}

// read finds the newest head, and the block that is to be written next: the other one. Both blocks have to verify: no power cut tears one, and
// whoever spoils the newer could cut the log by the records that the older does not know.
func (h *headFile) read() (newest Head, next int64, err error) {
	for n := range int64(2) {
		block := make([]byte, headBlock)
		_, err := h.f.ReadAt(block, n*headBlock)
		var head Head
		if err == nil {
			head, err = h.parse(block)
		}
		if err != nil {
			return newest, 0, fmt.Errorf("block %d: %w", n, err)
		}
		if n == 0 || head.Seq >= newest.Seq {
			newest, next = head, 1-n
		}
	}
	return newest, next, nil
}

// parse reads a block.
func (h *headFile) parse(block []byte) (head Head, err error) {
	switch {
	case !bytes.HasPrefix(block, []byte(headMagic)):
		return head, errors.New("it is no head of an audit log")
	case binary.BigEndian.Uint32(block[len(headMagic):]) != headVersion:
		return head, fmt.Errorf("it has version %d, this build reads version %d", binary.BigEndian.Uint32(block[len(headMagic):]), headVersion)
	case !bytes.Equal(block[headStore:headSeq], h.store[:]):
		return head, fmt.Errorf("it is of store %s", uuid.UUID(block[headStore:headSeq]))
	}
	want, err := h.block(Head{Seq: binary.BigEndian.Uint64(block[headSeq:]), Hash: hex.EncodeToString(block[headHash:headMAC])})
	if err != nil {
		return head, err
	}
	if !hmac.Equal(want, block) {
		return head, errors.New("it was altered, or written without the store's key")
	}
	return Head{Seq: binary.BigEndian.Uint64(block[headSeq:]), Hash: hex.EncodeToString(block[headHash:headMAC])}, nil
}

// block makes the block of a head.
func (h *headFile) block(head Head) ([]byte, error) {
	hash, err := hex.DecodeString(head.Hash)
	if err != nil || len(hash) != sha256.Size {
		return nil, fmt.Errorf("audit: %q is no hash", head.Hash)
	}
	b := make([]byte, 0, headBlock)
	b = append(b, headMagic...)
	b = binary.BigEndian.AppendUint32(b, headVersion)
	b = append(b, h.store[:]...)
	b = binary.BigEndian.AppendUint64(b, head.Seq)
	b = append(b, hash...)
	mac, err := h.mac(b)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return append(b, mac...)[:headBlock], nil
}

// write puts a head into the block whose turn it is. It is not synced: after a power cut an older head is as good.
func (h *headFile) write(head Head) error {
	b, err := h.block(head)
	if err == nil {
		_, err = h.f.WriteAt(b, h.next*headBlock)
	}
	h.unsure = err != nil
	if err != nil {
		return fmt.Errorf("audit: %s: %w", HeadFile, err)
	}
	h.last, h.next = head, 1-h.next
	return nil
}

func (h *headFile) close() error {
	if h == nil {
		return nil
	}
	return h.f.Close()
}

// writeHead keeps the head of what is durable. The caller holds io.
func (l *Log) writeHead(head Head) {
	if l.head == nil {
		return
	}
	if err := l.head.write(head); err != nil {
		l.c.HeadFailed(err)
	}
}

// makeHead makes the head file, durably and as a whole.
func (l *Log) makeHead() error {
	l.io.Lock()
	defer l.io.Unlock()
	path := l.c.headPath()
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	h := &headFile{f: f, store: l.c.Store, mac: l.c.MAC}
	for range 2 {
		err = errors.Join(err, h.write(l.Head()))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = durable.Dir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("audit: making %s: %w", HeadFile, err), f.Close())
	}
	l.head = h
	return nil
}
