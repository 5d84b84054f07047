package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"nbdcrypt/nbd/internal/wire"
)

// CertificatePrefix begins the Name of a peer that a certificate has named.
const CertificatePrefix = "cert:"

var (
	errInjected = errors.New("nbd: STARTTLS: the client sent more before the answer, or somebody did in its name")
	errOldTLS   = errors.New("nbd: STARTTLS: the client speaks nothing newer than TLS 1.1")
	errNameless = errors.New("nbd: STARTTLS: the client's certificate has no common name (CN), which would say who it is")
)

// startTLS moves the connection into TLS (spec items 10 and 11). After the ACK there is no way back: what fails then ends
// the session.
func (o option) startTLS(ctx context.Context) error {
	c := o.conn
	switch {
	case o.Length != 0:
		return o.refuse(wire.RepErrInvalid, "STARTTLS takes no data")
	case c.secure:
		return o.reply(wire.RepErrInvalid, []byte("TLS is on already"))
	case c.entrance.TLS == nil:
		return o.reply(wire.RepErrUnsup, []byte("there is no TLS on this socket"))
	case c.in.head != c.in.tail:
		return errInjected // it would pass for something that was said inside TLS (CVE-2021-3716)
	}
	if err := o.reply(wire.RepAck, nil); err != nil {
		return err
	}
	tc := tls.Server(c.nc, c.entrance.TLS)
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("nbd: STARTTLS: %w", err)
	}
	return c.secureWith(tc)
}

// secureWith forgets what was agreed on before TLS, and takes over who the certificate says that the peer is.
func (c *conn) secureWith(tc *tls.Conn) error {
	state := tc.ConnectionState()
	if state.Version < tls.VersionTLS12 {
		return errOldTLS
	}
	c.setConn(tc)
	c.in.wipe()
	c.in = newSource(tc)
	c.terms = terms{}
	c.secure = true
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	name := state.VerifiedChains[0][0].Subject.CommonName
	if name == "" {
		return errNameless
	}
	return c.server.rename(c, Peer{UID: NoUID, GID: NoUID, Name: CertificatePrefix + name})
}
