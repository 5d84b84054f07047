package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// maxSocketPath is what sun_path of unix(7) holds, without its closing NUL.
const maxSocketPath = 107

// Who may connect to a socket.
const (
	// forAll is for sockets where the kernel says who somebody is, and what they may do is asked each time.
	forAll os.FileMode = 0o666
	// forGroup is for the daemon's user and its group.
	forGroup os.FileMode = 0o660
)

// listenUnix listens at path, which flags name. As the umask leaves it only the daemon's user may connect, until it is opened to those
// for whom it is.
func listenUnix(path, flags string, who os.FileMode) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, refusal.New(refusal.Usage, "choose a shorter path with "+flags, "the socket path %s has %d bytes; the system takes %d", path, len(path), maxSocketPath)
	}
	if err := clearSocket(path, flags); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "name a path with "+flags+" whose directory is there and may be written by this user",
			"the socket %s can't be made: %w", path, err)
	}
	if err := openSocket(path, who); err != nil {
		return nil, errors.Join(fmt.Errorf("daemon: opening %s to clients: %w", path, err), l.Close())
	}
	return l, nil
}

// clearSocket removes a socket that nobody listens at any more, and nothing else.
func clearSocket(path, flags string) error {
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return refusal.New(refusal.Failed, "move it away, or choose another path with "+flags, "%s is there and is no socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) { // one that is too busy to answer is somebody's, too
		return refusal.New(refusal.Busy, "choose another path with "+flags, "somebody listens at %s already", path)
	}
	return os.Remove(path)
}

// openSocket sets who may connect. Where somebody else may write the directory, path could be a link to another file by now.
func openSocket(path string, who os.FileMode) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return err
	}
	if is.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("somebody has put something else in its place")
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), who)
}
