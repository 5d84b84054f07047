package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// Safe refuses a place that others than root and the user of that uid could put something else at, before a file system is mounted there or
// when it is to be unmounted: by a directory above it that they own or may write to. Of a sticky one that is root's they can't take away what is not
// theirs.
func Safe(place string, uid int) error {
	info, err := os.Lstat(place)
	if err != nil {
		return fmt.Errorf("nothing can be mounted at %s: %w", place, err)
	}
	for at := place; at != "/"; {
		below := info
		at = filepath.Dir(at)
		if info, err = os.Lstat(at); err != nil {
			return fmt.Errorf("nothing can be mounted at %s: %w", place, err)
		}
		if !trusts(info, below, uid) {
			return refusal.New(refusal.Denied, "name one that only root can move, such as /srv/NAME, or see to the directory with `chown root "+at+" && chmod go-w "+at+"`",
				"nothing is mounted at %s: others than root may change what is in %s (%s, of user %d)", place, at, info.Mode(), owner(info))
		}
	}
	return nil
}

// trusts tells whether only root and that user can move what lies in a directory.
func trusts(dir, below os.FileInfo, uid int) bool {
	mine := func(i os.FileInfo) bool { return owner(i) == 0 || int(owner(i)) == uid }
	const others = 0o022 // an access list has its most in the bits of the group
	return mine(dir) && (dir.Mode()&others == 0 || dir.Mode()&os.ModeSticky != 0 && mine(below))
}

func owner(i os.FileInfo) uint32 { return i.Sys().(*syscall.Stat_t).Uid }
