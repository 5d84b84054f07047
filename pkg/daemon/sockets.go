package daemon

import (
	"fmt"
	"net"
	"os"

	"nbdcrypt/pkg/refusal"
)

// maxSocketPath is what sun_path of unix(7) holds, without its closing NUL.
const maxSocketPath = 107

// listenUnix listens at path. Everybody may connect: who somebody is, the kernel says, and what they may do is asked each
// time. A socket that is there already is of a daemon that is gone, because the directory's lock is ours.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, refusal.New(refusal.Usage, "choose a shorter path with --run or --listen",
			"the socket path %s has %d bytes; the system takes %d", path, len(path), maxSocketPath)
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "name a path with --run or --listen whose directory is there and may be written by this user",
			"the socket %s can't be made: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("daemon: %w", err)
	}
	return l, nil
}

// clearSocket removes a socket that nobody listens at any more, and nothing else.
func clearSocket(path string) error {
	info, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return refusal.New(refusal.Failed, "move it away, or choose another path with --run or --listen", "%s is there and is no socket", path)
	}
	return os.Remove(path)
}
