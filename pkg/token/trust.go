package token

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Helper is the program that loads a token's module.
const Helper = "nbdcrypt-pkcs11"

// findHelper looks beside this program, where `make pkcs11` puts it, then in $PATH. It runs with all that the daemon may do, so it must not be
// a file that somebody else could have put there.
func findHelper() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), Helper)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if path, err = exec.LookPath(Helper); err != nil {
			return "", fmt.Errorf("the program %s is neither beside %s nor in $PATH", Helper, self)
		}
	}
	return Trusted(path)
}

// Trusted follows links to a file that is to be run or loaded, and refuses one that others than root and this process's user may write,
// or put another in the place of.
func Trusted(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", err
	}
	if err := ours(path, unix.S_IFREG); err != nil {
		return "", err
	}
	for dir := path; dir != "/"; {
		dir = filepath.Dir(dir)
		if err := ours(dir, unix.S_IFDIR); err != nil {
			return "", err
		}
	}
	return path, nil
}

// ours refuses what others may write. In a directory with the sticky bit they can make files, and not replace those of others.
func ours(path string, kind uint32) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	sticky := kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0
	switch me := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != kind:
		return fmt.Errorf("%s is not a regular file", path)
	case st.Uid != me && st.Uid != 0:
		return fmt.Errorf("%s belongs to user %d, neither to root nor to user %d: whoever that is could put another program there", path, st.Uid, me)
	case st.Mode&0o022 != 0 && !sticky:
		return fmt.Errorf("%s has mode %04o: others than its owner may write it, and put another program there", path, st.Mode&0o7777)
	}
	return nil
}
