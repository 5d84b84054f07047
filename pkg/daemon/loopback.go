package daemon

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nbdcrypt/nbd"
)

var errNoOwner = errors.New("daemon: the client's socket is not one of this machine that is open")

// loopbackPeer asks the kernel whose the other socket of a connection inside this machine is. It looks twice: a socket that is open, and
// somebody's, at the second look had not lost its owner at the first, where one that is closed at that moment may pass for root's. In the
// end our side has to stand still: a client that breaks its connection off leaves us what it sent, and its address to the next one.
func loopbackPeer(nc net.Conn) (nbd.Peer, error) {
	tcp, ok := nc.(*net.TCPConn)
	local, ok2 := nc.LocalAddr().(*net.TCPAddr)
	remote, ok3 := nc.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 || !ok3 {
		return nbd.Peer{}, fmt.Errorf("daemon: %v is no TCP address", nc.RemoteAddr())
	}
	client, server := remote.AddrPort(), local.AddrPort()
	uid, err := ownerOf(client, server)
	if err != nil {
		return nbd.Peer{}, err
	}
	if again, err := ownerOf(client, server); err != nil || again != uid {
		return nbd.Peer{}, errNoOwner
	}
	if !stands(tcp) {
		return nbd.Peer{}, errNoOwner
	}
	return nbd.Peer{UID: uid, GID: nbd.NoUID}, nil
}

// stands tells whether neither side has ended a connection. Until then nobody else can have its addresses.
func stands(tcp *net.TCPConn) bool {
	const established = 1 // TCP_ESTABLISHED
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	return err == nil && asked == nil && info.State == established
}

// ownerOf finds the client's socket in the kernel's lists. A socket of IPv6 may carry a connection of IPv4.
func ownerOf(client, server netip.AddrPort) (uint32, error) {
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	if !client.Addr().IsLoopback() {
		return 0, errNoOwner
	}
	if client.Addr().Is4() {
		if uid, err := searchSockets("/proc/self/net/tcp", procAddress(client, false), procAddress(server, false)); !errors.Is(err, errNoOwner) {
			return uid, err
		}
	}
	return searchSockets("/proc/self/net/tcp6", procAddress(client, true), procAddress(server, true))
}

// procAddress writes an address as /proc/net/tcp does: 32-bit words as this machine has them in memory.
func procAddress(a netip.AddrPort, wide bool) string {
	bytes := a.Addr().AsSlice()
	if wide {
		all := a.Addr().As16()
		bytes = all[:]
	}
	var b strings.Builder
	for ; len(bytes) > 0; bytes = bytes[4:] {
		fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(bytes))
	}
	fmt.Fprintf(&b, ":%04X", a.Port())
	return b.String()
}

func searchSockets(path, client, server string) (uint32, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, errNoOwner // no IPv6
	}
	if err != nil {
		return 0, fmt.Errorf("daemon: %w", err)
	}
	defer file.Close()
	return searchList(file, client, server)
}

// searchList reads lines of "sl local remote state queues timer retransmits uid timeout inode ...". Only a connection that stands counts:
// what is left of one that has ended belongs to nobody and is listed as root's.
func searchList(list io.Reader, client, server string) (uint32, error) {
	const established = "01"
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[1] != client || f[2] != server {
			continue
		}
		uid, err := strconv.ParseUint(f[7], 10, 32)
		if f[3] != established || f[9] == "0" || err != nil || uint32(uid) == nbd.NoUID {
			return 0, errNoOwner
		}
		return uint32(uid), nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("daemon: the list of sockets: %w", err)
	}
	return 0, errNoOwner
}
