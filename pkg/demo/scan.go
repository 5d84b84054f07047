package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// scanChunk is how much of a file is looked at in one go.
const scanChunk = 1 << 20

// found is what a search came to.
type found struct {
	hits  int
	files int
	bytes int64
	in    []string // the files with hits
}

func (f *found) add(one found) {
	f.hits, f.files, f.bytes = f.hits+one.hits, f.files+one.files, f.bytes+one.bytes
	f.in = append(f.in, one.in...)
}

// scanTree looks for a text in every regular file under a directory.
func scanTree(dir string, text []byte) (all found, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		one, err := scanFile(path, text)
		if err != nil {
			return err
		}
		all.add(one)
		return nil
	})
	if err != nil {
		return all, fmt.Errorf("searching %s: %w", dir, err)
	}
	return all, nil
}

// scanFile looks for a text in one file.
func scanFile(path string, text []byte) (one found, err error) {
	file, err := os.Open(path)
	if err != nil {
		return one, err
	}
	defer file.Close()
	one.files = 1
	if one.hits, one.bytes, err = scan(file, text, scanChunk); err != nil {
		return one, err
	}
	if one.hits > 0 {
		one.in = []string{path}
	}
	return one, nil
}

// scan counts a text in what r gives, a chunk at a time. The end of each chunk is kept in front of the next, one byte
// shorter than the text: so a text across the border is seen, and none is seen twice.
func scan(r io.Reader, text []byte, chunk int) (hits int, length int64, err error) {
	if len(text) == 0 {
		return 0, 0, errors.New("nothing to look for")
	}
	window := make([]byte, 0, len(text)-1+chunk)
	for {
		kept := len(window)
		n, err := io.ReadFull(r, window[kept:kept+chunk])
		window, length = window[:kept+n], length+int64(n)
		hits += count(window, text)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return hits, length, nil
		}
		if err != nil {
			return hits, length, err
		}
		tail := window[max(0, len(window)-len(text)+1):]
		window = append(window[:0], tail...)
	}
}

// count counts every place at which text begins, overlapping ones too.
func count(b, text []byte) (n int) {
	for {
		i := bytes.Index(b, text)
		if i < 0 {
			return n
		}
		n, b = n+1, b[i+1:]
	}
}
