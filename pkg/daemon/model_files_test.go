package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// copyStill copies a tree as it is at one moment: Badger may be moving files about, which happens after a start.
func copyStill(to, from string) error {
	for range 100 {
		before, err := listTree(from)
		if err == nil {
			err = copyTree(to, from)
		}
		after, errAfter := listTree(from)
		if err == nil && errAfter == nil && slices.Equal(before, after) {
			return nil
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the files do not come to rest")
}

func listTree(root string) (list []string, err error) {
	err = filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			list = append(list, fmt.Sprint(path, info.Size(), info.ModTime()))
		}
		return err
	})
	return list, err
}

// copyTree copies files and folders, with holes where there are zeros: Badger's files are mostly those.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := to + strings.TrimPrefix(path, from)
		if entry.IsDir() {
			return os.MkdirAll(name, 0o700)
		}
		return copySparse(name, path)
	})
}

func copySparse(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var zeros [4096]byte
	for at := 0; at < len(b); at += len(zeros) {
		piece := b[at:min(at+len(zeros), len(b))]
		if bytes.Equal(piece, zeros[:len(piece)]) {
			continue
		}
		if _, err := f.WriteAt(piece, int64(at)); err != nil {
			return err
		}
	}
	return f.Truncate(int64(len(b)))
}
