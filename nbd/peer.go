package nbd

import (
	"fmt"
	"net"
	"syscall"
)

// NoUID is the UID of who is known by Name alone. No user has it (uid_t(-1) of setuid(2)).
const NoUID = ^uint32(0)

// Peer is who is at the other end. Over a unix socket the kernel names the user; Name is for who is not known by a uid, the kind
// first, so that nothing passes for another kind: CertificatePrefix and the name in the certificate, or what an Entrance says.
// Who has neither is not known yet, and waits for a certificate.
type Peer struct {
	UID, GID uint32
	PID      int32
	Name     string
}

// PeerOf asks the kernel who connected. A connection that has no peer credentials is an error and not a Peer: the
// zero value would be root.
func PeerOf(conn net.Conn) (Peer, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("nbd: peer of a %s connection is not known", conn.LocalAddr().Network())
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("nbd: peer credentials: %w", err)
	}
	var cred *syscall.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		cred, asked = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = asked
	}
	if err != nil {
		return Peer{}, fmt.Errorf("nbd: peer credentials: %w", err)
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}
