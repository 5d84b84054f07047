package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// writeNew writes a file durably under a temporary name beside it and returns that name.
func writeNew(path string, b []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp") // O_EXCL, 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// replaceFile makes path hold b, or leaves it as it was.
func replaceFile(path string, b []byte) error {
	tmp, err := writeNew(path, b)
	if err != nil {
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	if err := durable.Dir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("keystore: write %s: %w", path, err)
	}
	return nil
}

// linkNew makes path hold b and fails where something is there already.
func linkNew(path string, b []byte) error {
	tmp, err := writeNew(path, b)
	if err != nil {
		return err
	}
	err = os.Link(tmp, path)
	if err = errors.Join(err, os.Remove(tmp)); err != nil {
		return err
	}
	return durable.Dir(filepath.Dir(path))
}

// readRootFile reads a root key file straight into secret memory, once it is sure whose file that is.
func readRootFile(path string) (*secret.Key, int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, 0, refusal.New(refusal.Locked, "name the file itself with --root-key",
			"the root key file %s is a symbolic link", path)
	}
	if err != nil {
		return nil, 0, refusal.New(refusal.Locked, "see that the daemon's user may read it", "the root key file %s can't be opened: %w", path, err)
	}
	defer unix.Close(fd)
	if err := checkOwner(fd, path); err != nil {
		return nil, 0, err
	}
	buf, err := secret.Work(maxTextFile, rootText)
	if err != nil {
		return nil, 0, fmt.Errorf("keystore: %w", err)
	}
	n, err := readFull(fd, buf.Bytes())
	if err != nil {
		buf.Destroy()
		return nil, 0, refusal.New(refusal.Locked, "see what the system's log says of the disk", "the root key file %s can't be read: %w", path, err)
	}
	return buf, n, nil
}

func readFull(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// checkOwner refuses a root key that others could have read, or put there.
func checkOwner(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("keystore: %s: %w", path, err)
	}
	me := uint32(os.Geteuid())
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return refusal.New(refusal.Locked, "name a regular file with --root-key", "the root key %s is not a regular file", path)
	case st.Uid != me && st.Uid != 0:
		return refusal.New(refusal.Locked, fmt.Sprintf("run `chown %d %s`", me, path),
			"the root key file %s belongs to user %d, who could change it; it has to belong to user %d or root", path, st.Uid, me)
	case st.Mode&0o077 != 0:
		return refusal.New(refusal.Locked, "run `chmod 600 "+path+"`",
			"the root key file %s has mode %04o: others than its owner can reach it", path, st.Mode&0o7777)
	}
	return nil
}

// checkOutside refuses a root key inside what it protects (rule A5).
func checkOutside(keyFile, stateDir string) error {
	in, err := inside(keyFile, stateDir)
	if in {
		err = refusal.New(refusal.Locked, "name a place elsewhere with --root-key; a backup of one must not be a backup of both",
			"the root key file %s lies inside the state directory %s, beside what it protects", keyFile, stateDir)
	}
	return err
}

// inside tells whether a file lies in a directory, symbolic links resolved.
func inside(file, dir string) (bool, error) {
	path, err := resolve(file)
	if err != nil {
		return false, fmt.Errorf("keystore: %s: %w", file, err)
	}
	top, err := resolve(dir)
	if err != nil {
		return false, fmt.Errorf("keystore: %s: %w", dir, err)
	}
	rel, err := filepath.Rel(top, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../"), nil
}

// resolve follows the links of as much of a path as exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
		dir, err := resolve(filepath.Dir(path))
		return filepath.Join(dir, filepath.Base(path)), err
	}
	return real, err
}
