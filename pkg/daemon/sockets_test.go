package daemon

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// A socket that a daemon has left behind is replaced; one that somebody listens at is not, however busy they are.
func TestSocketsOfOthersStay(t *testing.T) {
	at := func(name string) string { return filepath.Join(t.TempDir(), name) }
	left, busy, datagrams := at("left"), at("busy"), at("datagrams")
	l, err := net.Listen("unix", left)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listenUnix(left, "--run", forAll); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(left); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: busy}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // more than it has room for
		if c, err := net.Dial("unix", busy); err == nil {
			defer c.Close()
		}
	}
	d, err := net.ListenPacket("unixgram", datagrams)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, path := range []string{left, busy, datagrams} {
		if _, err := listenUnix(path, "--run", forAll); refusal.CodeOf(err) != refusal.Busy {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Where others may write the directory, what is opened to clients is the socket and not what they put in its place.
func TestOnlySocketsAreOpened(t *testing.T) {
	file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if err := openSocket(path, forAll); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
}
