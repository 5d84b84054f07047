// Package backup is the file that a backup is: written once, read as a stream or in any order, and proven by a signature that
// whoever has the store's public key can check without a secret. docs/backup-format.md gives the bytes. The package knows nothing of
// keys for data: what it stores is what it is handed, and a wrapped key is a text to it.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"nbdcrypt/pkg/refusal"
)

// The numbers of docs/backup-format.md.
const (
	// Version is the format that this build writes and reads.
	Version = 1
	// HeaderSize is also the length of the trailer.
	HeaderSize = 4096
	// PageSize is the length of a page.
	PageSize = 64 << 10
	// ChunkSize is how much data has one hash.
	ChunkSize = 1 << 20
	// BlockSize is the unit of extents.
	BlockSize = 4096
	// MaxSize is the largest disk.
	MaxSize = 1 << 50
	// MaxDepth is how many backups an incremental one stands on at most.
	MaxDepth = 63
	// MaxExtents and MaxChunks are what a page has room for.
	MaxExtents = 2042
	MaxChunks  = 1024
	// MaxRecord is the longest DEK record.
	MaxRecord = 3584

	hashSize     = sha256.Size
	trailerSize  = HeaderSize
	nameSize     = 128
	projectSize  = 64
	pageHead     = 64
	extentSize   = 16
	maxPageData  = MaxChunks * ChunkSize
	maxZeroCount = 1<<32 - 1
)

// Hash is a SHA-256.
type Hash [hashSize]byte

// String is how a hash is shown.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

func hashOf(p []byte) Hash { return sha256.Sum256(p) }

// damaged refuses bytes that are not as they were written, or not by whom they should be.
func damaged(format string, args ...any) error {
	return refusal.New(refusal.Damaged, "get this backup from another copy; nothing in this file counts until all of it does", format, args...)
}

// unknown refuses what a later format may mean something by.
func unknown(format string, args ...any) error {
	return refusal.New(refusal.Damaged, "use a build that reads it, or get this backup from another copy", format, args...)
}

// allZero tells whether bytes that this version has no use for are zero.
func allZero(p []byte) bool { return len(bytes.TrimLeft(p, "\x00")) == 0 }

// blocks is how many blocks a disk of size bytes has.
func blocks(size int64) int64 { return (size + BlockSize - 1) / BlockSize }
