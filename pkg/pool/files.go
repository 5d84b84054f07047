package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
)

// Files is a pool of local files: volume "L/data" is the files DIR/L/data.0000, data.0001, … of at most 1 TiB.
type Files struct {
	dir         string
	fastReserve func() bool

	mu   sync.Mutex
	open map[Identity]*fileVolume
}

// OpenFiles opens the pool in dir and makes the folder where it is missing.
func OpenFiles(dir string) (*Files, error) {
	if _, err := os.Stat(dir); err != nil {
		if err := makeDurably(dir); err != nil {
			return nil, fmt.Errorf("pool: %w", err)
		}
	}
	f := &Files{dir: dir, open: map[Identity]*fileVolume{}}
	f.fastReserve = sync.OnceValue(f.canAllocate)
	return f, nil
}

// makeDurably makes a folder and those above it that are missing; none of them goes with a power cut.
func makeDurably(dir string) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); err != nil && parent != dir {
		if err := makeDurably(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return durable.Dir(parent)
}

// Capabilities of local files.
func (f *Files) Capabilities() Capabilities {
	return Capabilities{Discard: true, Reserve: true, FastReserve: f.fastReserve(), Paths: true}
}

// canAllocate asks the file system for a block of a file without a name, for there is no way to ask whether it would.
func (f *Files) canAllocate() bool {
	fd, err := unix.Open(f.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	err = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, BlockSize)
	return errors.Join(err, unix.Close(fd)) == nil
}

// Space asks the file system.
func (f *Files) Space() (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return Space{}, fmt.Errorf("pool: %s: %w", f.dir, err)
	}
	return Space{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// Settle syncs the file system. What that tells of failed writes it tells once, to the first who asks so after them (Linux 5.8); a sync of a file
// that tells of them does not count as asking.
func (f *Files) Settle() error {
	fd, err := unix.Open(f.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("pool: %s: %w", f.dir, err)
	}
	if err := errors.Join(unix.Syncfs(fd), unix.Close(fd)); err != nil {
		return fmt.Errorf("pool: sync the file system of %s: %w", f.dir, err)
	}
	return nil
}

// base is the path of a volume's files without their number.
func (f *Files) base(name string) (string, error) {
	layer, vol, ok := strings.Cut(name, "/")
	if !ok || layer == "" || vol == "" || strings.ContainsAny(vol, `/.*?[\`) || strings.HasPrefix(layer, ".") {
		return "", fmt.Errorf("pool: %q is not a volume name (LAYER/PART)", name)
	}
	return filepath.Join(f.dir, layer, vol), nil
}

func segmentPath(base string, i int) string { return fmt.Sprintf("%s.%04d", base, i) }

// Create makes every segment at its full, sparse length and syncs them with their folders.
func (f *Files) Create(_ context.Context, name string, size int64) error {
	base, err := f.base(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(segmentPath(base, 0)); err == nil {
		return fmt.Errorf("%w: %s", ErrExist, name)
	}
	if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
		return fmt.Errorf("pool: create %s: %w", name, err)
	}
	if err := createSegments(base, 0, size); err != nil {
		_ = f.remove(base)
		return fmt.Errorf("pool: create %s: %w", name, err)
	}
	return durable.Dir(f.dir)
}

// createSegments makes the files from number first on, for a volume of size bytes, and syncs their folder.
func createSegments(base string, first int, size int64) error {
	for i := first; i < segments(size); i++ {
		if err := createSegment(segmentPath(base, i), segmentLen(size, i)); err != nil {
			return err
		}
	}
	return durable.Dir(filepath.Dir(base))
}

// createSegment may find the file there: an earlier try that failed half-way left it.
func createSegment(path string, length int64) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Truncate(length); err != nil {
		return err
	}
	return file.Sync()
}

// Delete removes the files, the last first, so that a crash leaves a volume that can be deleted again.
func (f *Files) Delete(_ context.Context, name string) error {
	base, err := f.base(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(segmentPath(base, 0)); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(filepath.Dir(base)) // a crash between a file and its folder left the folder, where it is empty
		return fmt.Errorf("%w: %s", ErrNotExist, name)
	}
	if err := f.remove(base); err != nil {
		return fmt.Errorf("pool: delete %s: %w", name, err)
	}
	return nil
}

func (f *Files) remove(base string) error {
	paths, err := segmentPaths(base)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(paths) {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	// The folder goes with its last volume; while it has another this fails, which is as it should be.
	if os.Remove(filepath.Dir(base)) != nil {
		return durable.Dir(filepath.Dir(base))
	}
	return durable.Dir(f.dir)
}

// List names every volume whose first file is there.
func (f *Files) List(context.Context) (names []string, err error) {
	layers, err := readDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	for _, layer := range layers {
		if !layer.IsDir() {
			continue
		}
		files, err := readDir(filepath.Join(f.dir, layer.Name()))
		if err != nil {
			return nil, fmt.Errorf("pool: %w", err)
		}
		for _, file := range files {
			if vol, is := strings.CutSuffix(file.Name(), ".0000"); is {
				names = append(names, layer.Name()+"/"+vol)
			}
		}
	}
	return names, nil
}

// readDir lists a folder in order; one that is not there is empty. Any other error is one: a process without descriptors must not
// find its disks gone.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// Segments are the paths of a volume's files.
func (f *Files) Segments(name string) ([]string, error) {
	base, err := f.base(name)
	if err != nil {
		return nil, err
	}
	paths, err := segmentPaths(base)
	if err != nil {
		return nil, fmt.Errorf("pool: %s: %w", name, err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotExist, name)
	}
	for i, p := range paths {
		if paths[i], err = filepath.Abs(p); err != nil {
			return nil, fmt.Errorf("pool: %w", err)
		}
	}
	return paths, nil
}

// segmentPaths are the files of a volume in order.
func segmentPaths(base string) (paths []string, err error) {
	dir, vol := filepath.Split(base)
	files, err := readDir(dir)
	for _, file := range files {
		if number, is := strings.CutPrefix(file.Name(), vol+"."); is && isNumber(number) {
			paths = append(paths, filepath.Join(dir, file.Name()))
		}
	}
	return paths, err
}

func isNumber(s string) bool { return len(s) == 4 && strings.Trim(s, "0123456789") == "" }
