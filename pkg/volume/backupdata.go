package volume

import (
	"context"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// eachExtent tells what the first of some layers with anything there have, in rising order: all of their data, and zeros where over says that something
// stands below them.
func eachExtent(ctx context.Context, layers []mapped, size int64, over bool, fn func(backup.Extent) error) error {
	var last backup.Extent
	flush := func() error {
		if last.Count == 0 {
			return nil
		}
		return fn(last)
	}
	for off, end := int64(0), layer.DataSize(size); off < end; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("volume: backup: %w", err)
		}
		state, to, err := below(layers, off, end)
		if err != nil {
			return err
		}
		e := backup.Extent{Block: off / layer.BlockSize, Count: (to - off) / layer.BlockSize, Zero: state != layer.Data}
		off = to
		switch {
		case state == layer.Absent, e.Zero && !over:
			continue
		case last.Count > 0 && last.End() == e.Block && last.Zero == e.Zero:
			last.Count += e.Count
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		last = e
	}
	return flush()
}

// dataIn is how many bytes of data a backup of these layers will have.
func dataIn(ctx context.Context, layers []mapped, size int64) (n int64, err error) {
	err = eachExtent(ctx, layers, size, false, func(e backup.Extent) error {
		n += e.Count * backup.BlockSize
		return nil
	})
	return n, err
}

// fillFrom reads a disk, and encrypts what it reads for the file. What lies past the end of the disk's last block is zeros.
func fillFrom(device *cryptdev.Device, size int64, file heldCipher, sector int) backup.Fill {
	return func(p []byte, off int64) error {
		n := min(int64(len(p)), size-off)
		clear(p[n:])
		if _, err := device.ReadAt(p[:n], off); err != nil {
			clear(p)
			return err
		}
		if file.cipher != nil {
			file.cipher.Encrypt(p, p, sector, uint64(off)/512)
		}
		return nil
	}
}

// writeOutLeast is what is worth a write of its own to storage.
const writeOutLeast = 64 << 10

// takeInto decrypts what a file holds, and writes it to a disk of size bytes. The buffer is left without plaintext.
func takeInto(device *cryptdev.Device, size int64, file heldCipher, sector int) backup.Take {
	return func(p []byte, off int64) error {
		if file.cipher != nil {
			file.cipher.Decrypt(p, p, sector, uint64(off)/512)
			defer clear(p)
		}
		if off >= size {
			return nil
		}
		n, err := device.WriteAt(p[:min(int64(len(p)), size-off)], off)
		if err != nil || n < writeOutLeast {
			return err
		}
		return device.WriteOut(off, int64(n)) // left to the end, all of it would wait there for one sync
	}
}

// fileCipher opens the DEK of a backup's file; the empty one is that of a plain backup.
func (s *Service) fileCipher(ctx context.Context, p pointRecord) (heldCipher, *keystore.KeyVersionRef, error) {
	if !p.Encrypted {
		return heldCipher{}, nil, nil
	}
	dek, key, err := s.Keys.UnwrapDEK(ctx, p.Project, p.holder(), p.fileLayer(), p.SectorSize)
	if err != nil {
		return heldCipher{}, nil, fmt.Errorf("%s can't be opened: %w", p.label(), err)
	}
	defer dek.Destroy()
	held, err := expand(p.ID, p.label(), dek)
	return held, &key, err
}

// wipeFile wipes what fileCipher gave.
func wipeFile(h heldCipher) {
	if h.cipher != nil {
		h.wipe()
	}
}
