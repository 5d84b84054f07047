package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
)

// precheck reads what Badger would read in goroutines of its own, where a panic on damaged bytes could not be
// caught, and what it would leave out with no more than a line in its log: the manifest and each table.
func precheck(dir string, create bool) error {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if os.IsNotExist(err) && create {
		return checkUnused(dir)
	}
	if os.IsNotExist(err) {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, path)
	}
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer f.Close()
	if err := checkKinds(dir); err != nil {
		return err
	}
	manifest, _, err := badger.ReplayManifestFile(f, 0, badgerOptions(dir, &badgerLog{to: slog.New(slog.DiscardHandler)}))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	if err := checkTables(dir, manifest); err != nil {
		return err
	}
	// It holds no keys, as Badger encrypts nothing here; where it is damaged Badger speaks of a wrong key.
	registry := filepath.Join(dir, badger.KeyRegistryFileName)
	if _, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true}); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, registry, err)
	}
	return nil
}

// checkKinds refuses whatever is no file where Badger has files only: it ends the process on some of them.
func checkKinds(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return fmt.Errorf("%w: %s is not a file", ErrDamaged, filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// manifestCut tells where a manifest ends in something that is not a whole record. A crash leaves that too, so it
// only serves to name the place.
func manifestCut(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	_, end, err := badger.ReplayManifestFile(f, 0, badgerOptions("", &badgerLog{to: slog.New(slog.DiscardHandler)}))
	st, statErr := f.Stat()
	if err != nil || statErr != nil || end >= st.Size() {
		return ""
	}
	return fmt.Sprintf("; %s is unreadable from byte %d on", filepath.Base(path), end)
}

// checkUnused refuses a directory that holds a catalog's files and no manifest: Badger would begin anew there.
func checkUnused(dir string) error {
	for _, kind := range []string{"*.sst", "*.mem", "*.vlog"} {
		if found, _ := filepath.Glob(filepath.Join(dir, kind)); len(found) > 0 {
			return fmt.Errorf("%w: %s is missing, and %s is there", ErrDamaged,
				filepath.Join(dir, badger.ManifestFilename), filepath.Base(found[0]))
		}
	}
	return nil
}

// checkTables reads all tables, on every processor.
func checkTables(dir string, manifest badger.Manifest) error {
	next := make(chan string, len(manifest.Tables))
	for id := range manifest.Tables {
		next <- table.NewFilename(id, dir)
	}
	close(next)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for path := range next {
				errs[i] = errors.Join(errs[i], checkTable(path))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func checkTable(path string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: its index can't be read", ErrDamaged, path)
		}
	}()
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if st.Size() == 0 {
		return fmt.Errorf("%w: %s is empty", ErrDamaged, path)
	}
	f, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	// VerifyChecksum reads block by block; a table that was opened without it is closed here.
	t, err := table.OpenTable(f, table.Options{ChkMode: options.OnTableAndBlockRead, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return t.Close(-1)
}

// brokenAt finds where a log of Badger's stops being readable: the offset of the first record that is neither
// whole nor the zeros after the last one. It only serves to name the place.
func brokenAt(path string) (int, bool) {
	b, err := os.ReadFile(path)
	const header = 20
	if err != nil || len(b) < header {
		return 0, true
	}
	for off := header; off < len(b); {
		n, ok := logRecord(b[off:])
		if !ok {
			return off, !allZero(b[off:])
		}
		off += n
	}
	return 0, false
}

// logRecord tells the length of the record at the start of b: two bytes of flags, three varints (key length, value
// length, expiry), key, value, and CRC-32C over all that.
func logRecord(b []byte) (int, bool) {
	if len(b) < 2 {
		return 0, false
	}
	at, lens := 2, [3]uint64{}
	for i := range lens {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return 0, false
		}
		lens[i], at = v, at+n
	}
	if lens[0] > uint64(len(b)) || lens[1] > uint64(len(b)) {
		return 0, false
	}
	end := at + int(lens[0]+lens[1])
	if lens[0] == 0 || end+crc32.Size > len(b) {
		return 0, false
	}
	want := crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli))
	return end + crc32.Size, binary.BigEndian.Uint32(b[end:]) == want
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
