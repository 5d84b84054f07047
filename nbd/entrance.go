package nbd

import (
	"crypto/tls"
	"net"
)

// Entrance is how clients come in by one listener.
type Entrance struct {
	// Peer tells who connected; nil asks the kernel for the credentials of a unix socket (PeerOf).
	Peer func(net.Conn) (Peer, error)
	// TLS, where it is not nil, lets clients upgrade. A certificate that it has verified names the peer anew.
	TLS *tls.Config
	// Force refuses everything else before that (spec item 10).
	Force bool
}
