package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// secured is a server with TLS, and what its clients trust.
type secured struct {
	*house
	authority *nbdtest.Authority
	exports   *asked
}

// asked notes who asks for exports.
type asked struct {
	nbd.Exports
	mu    sync.Mutex
	peers []nbd.Peer
}

func (a *asked) Open(ctx context.Context, peer nbd.Peer, name string) (*nbd.Export, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peers = append(a.peers, peer)
	return a.Exports.Open(ctx, peer, name)
}

// last is who asked last.
func (a *asked) last() nbd.Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.peers[len(a.peers)-1]
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

// serveTLS serves one disk; adjust may change how.
func serveTLS(t testing.TB, adjust func(*nbd.Server, *nbd.Entrance)) *secured {
	t.Helper()
	a := nbdtest.NewAuthority()
	exports := &asked{Exports: nbdtest.NewExports(disk("vol"))}
	server := nbd.NewServer(exports, slog.New(slog.DiscardHandler))
	e := nbd.Entrance{TLS: &tls.Config{Certificates: []tls.Certificate{a.Issue("server", in(time.Hour))}, ClientCAs: a.Pool(),
		ClientAuth: tls.VerifyClientCertIfGiven}}
	if adjust != nil {
		adjust(server, &e)
	}
	return &secured{serveBy(t, server, e), a, exports}
}

func force(_ *nbd.Server, e *nbd.Entrance) { e.Force = true }

// unknown is an entrance where nobody is known without a certificate, as over TCP.
func unknown(_ *nbd.Server, e *nbd.Entrance) {
	e.Force, e.TLS.ClientAuth = true, tls.RequireAndVerifyClientCert
	e.Peer = func(net.Conn) (nbd.Peer, error) { return nbd.Peer{UID: nbd.NoUID}, nil }
}

// config is a client's.
func (s *secured) config(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: s.authority.Pool(), ServerName: "localhost", Certificates: certs}
}

// upgrade takes the client into TLS.
func (c *raw) upgrade(config *tls.Config) error {
	c.t.Helper()
	c.want(optStartTLS, nil, repAck)
	tc := tls.Client(c.nc, config)
	c.over = tc
	return tc.Handshake()
}

// connectTLS goes as far as the end of STARTTLS.
func (s *secured) connectTLS(t testing.TB, certs ...tls.Certificate) *raw {
	t.Helper()
	c := s.connect(t, fixedFlags)
	if err := c.upgrade(s.config(certs...)); err != nil {
		t.Fatal(err)
	}
	return c
}

// enterTLS opens the disk.
func (s *secured) enterTLS(t testing.TB, certs ...tls.Certificate) *raw {
	t.Helper()
	c := s.connectTLS(t, certs...)
	c.want(optGo, ask("vol"), repAck)
	return c
}

func TestNBD10_ForcedTLS(t *testing.T) {
	s := serveTLS(t, force)
	c := s.connect(t, fixedFlags)
	for _, id := range []uint32{optList, optInfo, optGo, optStructured, optListMeta, optSetMeta, optExtended, 4, 99} {
		c.want(id, ask("vol"), repErrTLSReqd)
		c.want(id, nil, repErrTLSReqd)
	}
	if err := c.upgrade(s.config()); err != nil {
		t.Fatal(err)
	}
	c.want(99, nil, repErrUnsup)
	c.want(optInfo, ask("other"), repErrUnknown)
	c.want(optGo, ask("vol"), repAck)
	c.lives()
	s.connect(t, fixedFlags).want(optAbort, nil, repAck)
}

// There is no error reply to EXPORT_NAME, and a client that did not say that it knows fixed newstyle can do nothing else.
func TestNBD10_ForcedTLSHasNoWayRoundIt(t *testing.T) {
	s := serveTLS(t, force)
	c := s.connect(t, fixedFlags)
	c.option(optExportName, []byte("vol"))
	c.closed()
	for _, flags := range []uint32{0, 2} {
		s.connect(t, flags).closed()
	}
}

func TestNBD10_SelectiveTLS(t *testing.T) {
	s := serveTLS(t, nil)
	s.enter(t, "vol").lives()
	c := s.connect(t, fixedFlags)
	c.want(optInfo, ask("other"), repErrUnknown)
	c.want(99, nil, repErrUnsup)
	if err := c.upgrade(s.config()); err != nil {
		t.Fatal(err)
	}
	c.want(optStartTLS, []byte("data"), repErrInvalid)
	c.want(optStartTLS, nil, repErrInvalid)
	c.option(optExportName, []byte("vol"))
	c.read(10)
	c.lives()
	c = s.connect(t, 0)
	c.want(optStartTLS, nil, repErrUnsup) // "NOTLS mode" for who does not know fixed newstyle
}

func TestNBD10_ShutdownIsToldToWhoWantsTLS(t *testing.T) {
	s := serveTLS(t, force)
	s.server.Quiesce()
	c := s.connect(t, fixedFlags)
	c.want(optStartTLS, nil, repErrShutdown)
	c.want(optGo, ask("vol"), repErrTLSReqd)
	c.want(optAbort, nil, repAck)
}

// What stands in the buffer behind STARTTLS was said by anybody on the way (CVE-2021-3716).
func TestNBD11_InjectedBytesEndTheSession(t *testing.T) {
	s := serveTLS(t, nil)
	for _, more := range [][]byte{optionBytes(optGo, ask("vol")), optionBytes(optAbort, nil), {0x16}} {
		c := s.connect(t, fixedFlags)
		c.send(append(optionBytes(optStartTLS, nil), more...))
		c.closed()
	}
	// Behind the ACK too: they are no TLS.
	c := s.connect(t, fixedFlags)
	c.want(optStartTLS, nil, repAck)
	c.send(optionBytes(optGo, ask("vol")))
	if b, _ := io.ReadAll(c.nc); bytes.Contains(b, []byte("vol")) || len(b) > 7 {
		t.Errorf("the server answered %x", b)
	}
}

func TestNBD11_StateIsForgotten(t *testing.T) {
	s := serveTLS(t, nil)
	c := s.connect(t, fixedFlags)
	c.want(optExtended, nil, repAck)
	c.want(optSetMeta, askMeta("vol", "base:allocation"), repAck)
	if err := c.upgrade(s.config()); err != nil {
		t.Fatal(err)
	}
	c.want(optSetMeta, askMeta("vol", "base:allocation"), repErrInvalid)
	c.want(optGo, ask("vol"), repAck)
	c.lives() // in simple replies
	c = s.connect(t, fixedFlags)
	c.want(optStructured, nil, repAck)
	if err := c.upgrade(s.config()); err != nil {
		t.Fatal(err)
	}
	c.want(optStructured, nil, repAck)
	c.want(optExtended, nil, repAck)
}

// Whatever the configuration says.
func TestNBD11_OldTLSIsRefused(t *testing.T) {
	s := serveTLS(t, func(_ *nbd.Server, e *nbd.Entrance) { e.TLS.MinVersion = tls.VersionTLS10 })
	config := s.config()
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	c := s.connect(t, fixedFlags)
	_ = c.upgrade(config)
	c.over.SetDeadline(in(patience))
	if n, err := c.over.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("TLS 1.1 is served: %d bytes, %v", n, err)
	}
	config.MaxVersion = tls.VersionTLS12
	c = s.connect(t, fixedFlags)
	if err := c.upgrade(config); err != nil {
		t.Fatal(err)
	}
	c.want(optGo, ask("vol"), repAck)
}

func TestNBD11_ACertificateNamesTheUser(t *testing.T) {
	s := serveTLS(t, nil)
	s.enterTLS(t).lives()
	if peer := s.exports.last(); peer.UID != uint32(os.Getuid()) || peer.Name != "" {
		t.Errorf("without a certificate the peer is %+v", peer)
	}
	s.enterTLS(t, s.authority.Issue("alice", in(time.Hour))).lives()
	if peer := s.exports.last(); peer.UID != nbd.NoUID || peer.Name != "cert:alice" || peer.PID != 0 {
		t.Errorf("with alice's certificate the peer is %+v", peer)
	}
}

func TestNBD11_CertificatesThatAreRefused(t *testing.T) {
	s := serveTLS(t, unknown)
	commonName := func(name string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name}
	}
	for name, certs := range map[string][]tls.Certificate{
		"none":    nil,
		"expired": {s.authority.Issue("alice", in(-time.Minute))},
		"foreign": {nbdtest.NewAuthority().Issue("alice", in(time.Hour))},
		"no name": {s.authority.Issue("", in(time.Hour))},
		// A name that is there in other fields only.
		"other name": {s.authority.IssueTo(pkix.Name{Organization: []string{"alice"}, SerialNumber: "alice"}, in(time.Hour))},
		"two names": {s.authority.IssueTo(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{commonName("bob"), commonName("alice")}},
			in(time.Hour))},
		"NUL":        {s.authority.Issue("alice\x00.example.org", in(time.Hour))},
		"newline":    {s.authority.Issue("alice\n", in(time.Hour))},
		"zero width": {s.authority.Issue("al\u200bice", in(time.Hour))},
	} {
		c := s.connect(t, fixedFlags)
		if err := c.upgrade(s.config(certs...)); err == nil { // TLS 1.3 clients hear of it with the next read only
			_, _ = c.over.Write(optionBytes(optGo, ask("vol")))
			if n, err := c.over.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
		}
	}
	if len(s.exports.peers) > 0 {
		t.Errorf("exports were asked by %+v", s.exports.peers)
	}
	s.enterTLS(t, s.authority.Issue("alice", in(time.Hour))).lives()
}

// A client that trusts somebody else does not go on, and the server takes no harm.
func TestNBD11_TheClientMayRefuseToo(t *testing.T) {
	s := serveTLS(t, nil)
	c := s.connect(t, fixedFlags)
	if err := c.upgrade(&tls.Config{RootCAs: nbdtest.NewAuthority().Pool(), ServerName: "localhost"}); err == nil {
		t.Fatal("a foreign server was believed")
	}
	c.nc.Close()
	s.enterTLS(t).lives()
}

func TestNBD08_TLSHasTheHandshakesDeadline(t *testing.T) {
	s := serveTLS(t, func(server *nbd.Server, e *nbd.Entrance) { server.SetHandshakeTime(200 * time.Millisecond) })
	mute := s.connect(t, fixedFlags)
	mute.want(optStartTLS, nil, repAck)
	half := s.connect(t, fixedFlags)
	half.want(optStartTLS, nil, repAck)
	half.send([]byte{0x16, 3, 1, 1, 0, 1})
	entered := s.enterTLS(t)
	mute.closed()
	_, _ = io.ReadAll(half.nc) // an alert perhaps, then the end
	idle := s.connectTLS(t)
	if n, err := idle.over.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after TLS there is no deadline: %d, %v", n, err)
	}
	entered.lives()
}

func TestNBD24_TLSSaysCloseNotify(t *testing.T) {
	s := serveTLS(t, nil)
	c := s.enterTLS(t)
	c.send(request{command: cmdDisc}.bytes())
	if _, err := c.over.Read(make([]byte, 1)); err != io.EOF { // else it is io.ErrUnexpectedEOF
		t.Errorf("after DISC: %v", err)
	}
	c = s.connectTLS(t)
	c.want(optAbort, nil, repAck)
	if _, err := c.over.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after ABORT: %v", err)
	}
}

func TestTLSCarriesTheWholeProtocol(t *testing.T) {
	s := serveTLS(t, force)
	c := s.enterTLS(t)
	data := pattern(300_001, 5)
	c.do(request{command: cmdWrite, flags: flagFUA, offset: 77, length: uint32(len(data))}, ok, data...)
	c.readBack(77, data)
	c.do(request{command: cmdRead, offset: diskSize, length: 1}, einval)
	for i := range uint64(64) {
		c.send(request{command: cmdRead, cookie: i, offset: i * 4096, length: 4096}.bytes())
	}
	for range 64 {
		if _, errno := c.answered(); errno != ok {
			t.Fatal(errno)
		}
		c.read(4096)
	}
}

// A client that has stopped to read holds nobody up, though TLS wants to say goodbye.
func TestTLSClientThatStallsIsCut(t *testing.T) {
	s := serveTLS(t, func(server *nbd.Server, _ *nbd.Entrance) { server.SetFinishTime(100 * time.Millisecond) })
	for range 4 {
		c := s.enterTLS(t)
		for i := range uint64(8) {
			c.send(request{command: cmdRead, cookie: i, length: diskSize}.bytes())
		}
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNBD08_CertificatesCountAsUsers(t *testing.T) {
	s := serveTLS(t, func(server *nbd.Server, e *nbd.Entrance) { unknown(server, e); server.SetLimits(5, 1) })
	alice, bob := s.authority.Issue("alice", in(time.Hour)), s.authority.Issue("bob", in(time.Hour))
	first := s.enterTLS(t, alice)
	second := s.connectTLS(t, alice)
	if n, err := second.over.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("alice has two connections: %d, %v", n, err)
	}
	eventually(t, "there is room for who is not known yet", func() bool {
		nc, err := net.Dial("unix", s.path)
		if err != nil {
			return false
		}
		defer nc.Close()
		n, _ := nc.Read(make([]byte, 18))
		return n == 18
	})
	eventually(t, "and again", func() bool { return s.tryTLS(bob) })
	first.lives()
}

// Those who never say who they are don't keep out those who do.
func TestNBD08_StrangersMakeRoom(t *testing.T) {
	s := serveTLS(t, func(server *nbd.Server, e *nbd.Entrance) {
		unknown(server, e)
		server.SetLimits(8, 1)
		server.SetStrangers(2)
	})
	alice := s.enterTLS(t, s.authority.Issue("alice", in(time.Hour)))
	first, second := s.connect(t, fixedFlags), s.connect(t, fixedFlags)
	first.want(99, nil, repErrTLSReqd)
	bob := s.enterTLS(t, s.authority.Issue("bob", in(time.Hour)))
	first.closed()
	third := s.connect(t, fixedFlags) // in bob's place, who is known now
	for _, c := range []*raw{second, third} {
		c.want(99, nil, repErrTLSReqd)
	}
	alice.lives()
	bob.lives()
}

// tryTLS tells whether there was room for a client to open the disk and leave.
func (s *secured) tryTLS(cert tls.Certificate) bool {
	nc, err := net.Dial("unix", s.path)
	if err != nil {
		return false
	}
	defer nc.Close()
	nc.SetDeadline(in(patience))
	if _, err := io.ReadFull(nc, make([]byte, 18)); err != nil {
		return false
	}
	nc.Write(append(binary.BigEndian.AppendUint32(nil, fixedFlags), optionBytes(optStartTLS, nil)...))
	if _, err := io.ReadFull(nc, make([]byte, 20)); err != nil {
		return false
	}
	tc := tls.Client(nc, s.config(cert))
	if _, err := tc.Write(optionBytes(optGo, ask("vol"))); err != nil {
		return false
	}
	n, _ := io.ReadFull(tc, make([]byte, 20))
	return n == 20
}
