package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"nbdcrypt/nbd/internal/wire"
)

// CertificatePrefix begins the Name of a peer that a certificate has named.
const CertificatePrefix = "cert:"

var (
	errInjected = errors.New("nbd: STARTTLS: the client sent more before the answer, or somebody did in its name")
	errOldTLS   = errors.New("nbd: STARTTLS: the client speaks nothing newer than TLS 1.1")
	errNameless = errors.New("nbd: STARTTLS: the client's certificate does not have one common name (CN), which would say who it is")
	errOddName  = errors.New("nbd: STARTTLS: the common name (CN) of the client's certificate has characters that can't be printed")
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
	name, err := commonName(state.VerifiedChains[0][0])
	if err != nil {
		return err
	}
	return c.server.rename(c, Peer{UID: NoUID, GID: NoUID, Name: CertificatePrefix + name})
}

// commonName is whose a certificate is. Of several names, or of one that looks like another or ends early for somebody else's eyes,
// nobody could say that its authority meant this one.
func commonName(cert *x509.Certificate) (string, error) {
	kind, count := asn1.ObjectIdentifier{2, 5, 4, 3}, 0
	for _, part := range cert.Subject.Names {
		if part.Type.Equal(kind) {
			count++
		}
	}
	name := cert.Subject.CommonName
	switch {
	case count != 1 || name == "":
		return "", errNameless
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", errOddName
	}
	return name, nil
}
