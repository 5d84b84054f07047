package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdtest"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// withTLS writes an authority and a server's certificate for a daemon.
func withTLS(t *testing.T, o *Options) *nbdtest.Authority {
	t.Helper()
	dir := filepath.Dir(o.State)
	o.TLSCert, o.TLSKey, o.TLSCA = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	a := nbdtest.NewAuthority()
	writeTLS(t, *o, a, "server")
	return a
}

func writeTLS(t *testing.T, o Options, a *nbdtest.Authority, name string) {
	t.Helper()
	cert, key := nbdtest.PEM(a.Issue(name, time.Now().Add(time.Hour)))
	for path, text := range map[string][]byte{o.TLSCert: cert, o.TLSKey: key, o.TLSCA: a.PEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// opens tells whether a client with that certificate, or none, opens an export at a URI. TLS is used where there is a trusted authority.
func opens(t *testing.T, uri, export string, trusts *nbdtest.Authority, certs ...tls.Certificate) bool {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	network, at := "tcp", u.Host
	if path := u.Query().Get("socket"); path != "" {
		network, at = "unix", path
	}
	nc, err := net.Dial(network, at)
	if err != nil {
		t.Fatal(err)
	}
	return opensOver(t, nc, export, trusts, certs...)
}

// opensOver is opens on a connection that stands.
func opensOver(t *testing.T, nc net.Conn, export string, trusts *nbdtest.Authority, certs ...tls.Certificate) bool {
	t.Helper()
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	hello := make([]byte, 18)
	if _, err := io.ReadFull(nc, hello); err != nil {
		return false // whoever is not known is hung up on
	}
	said := []byte{0, 0, 0, 3}
	if trusts != nil {
		if _, err := nc.Write(append(said, "IHAVEOPT\x00\x00\x00\x05\x00\x00\x00\x00"...)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 20)
		if _, err := io.ReadFull(nc, answer); err != nil || answer[15] != 1 || answer[12] != 0 {
			t.Fatalf("STARTTLS: %x, %v", answer, err)
		}
		said, nc = nil, tls.Client(nc, &tls.Config{RootCAs: trusts.Pool(), ServerName: "localhost", Certificates: certs})
	}
	ask := append([]byte("IHAVEOPT\x00\x00\x00\x07\x00\x00\x00"), byte(len(export)+6), 0, 0, 0, byte(len(export)))
	ask = append(append(ask, export...), 0, 0)
	if _, err := nc.Write(append(said, ask...)); err != nil {
		return false
	}
	answer := make([]byte, 20)
	if _, err := io.ReadFull(nc, answer); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return false
	}
	return answer[12] == 0 // no error
}

// listening finds where a daemon listens by its scheme.
func listening(t *testing.T, o Options, scheme string) string {
	t.Helper()
	s, err := client(o).Status(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Listen, func(uri string) bool { return strings.HasPrefix(uri, scheme+"://") })
	if i < 0 {
		t.Fatalf("it does not listen at any %s, but at %q", scheme, s.Listen)
	}
	return s.Listen[i]
}

// serveVol runs a daemon with a disk "vol" open to those.
func serveVol(t *testing.T, o Options, allow ...string) {
	t.Helper()
	run(t, o)
	c := client(o)
	if _, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: "vol", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), "vol", control.Attach{Allow: allow}); err != nil {
		t.Fatal(err)
	}
}

func TestTLSOverTCP(t *testing.T) {
	o := options(t)
	a := withTLS(t, &o)
	o.Listen = []string{"nbds://127.0.0.1:0", "nbds+unix:///?socket=" + filepath.Join(filepath.Dir(o.State), "tls.sock")}
	serveVol(t, o, "cert:backup")
	issue := func(name string) tls.Certificate { return a.Issue(name, time.Now().Add(time.Hour)) }
	tcp, forced, selective := listening(t, o, "nbds"), listening(t, o, "nbds+unix"), listening(t, o, "nbd+unix")
	for name, want := range map[string]bool{"backup": true, "root": true, "somebody": false, "vsock:3": false, "cert:backup": false} {
		for _, at := range []string{tcp, forced, selective} {
			if got := opens(t, at, "vol", a, issue(name)); got != want {
				t.Errorf("%s at %s: %v", name, at, got)
			}
		}
	}
	if opens(t, tcp, "vol", a) || opens(t, tcp, "vol", a, nbdtest.NewAuthority().Issue("backup", time.Now().Add(time.Hour))) {
		t.Error("TCP is served without a certificate, or with a foreign one")
	}
	if opens(t, tcp, "vol", nil) || opens(t, forced, "vol", nil) {
		t.Error("what is TLS is served without")
	}
	// Over a unix socket the kernel says who it is, in TLS and without.
	if !opens(t, forced, "vol", a) || !opens(t, selective, "vol", a) || !opens(t, selective, "vol", nil) {
		t.Error("the attacher is refused on a unix socket")
	}
}

// A certificate is renewed, and an authority replaced, under a running daemon; files that are no good change nothing.
func TestTLSFilesAreReadAgain(t *testing.T) {
	o := options(t)
	first := withTLS(t, &o)
	o.Listen = []string{"nbds://127.0.0.1:0"}
	serveVol(t, o)
	at := listening(t, o, "nbds")
	root := func(a *nbdtest.Authority) tls.Certificate { return a.Issue("root", time.Now().Add(time.Hour)) }
	if err := os.WriteFile(o.TLSCert, []byte("half a cert"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !opens(t, at, "vol", first, root(first)) {
		t.Error("a damaged file is taken over")
	}
	second := nbdtest.NewAuthority()
	writeTLS(t, o, second, "server")
	if !opens(t, at, "vol", second, root(second)) {
		t.Error("new files are not read")
	}
	if opens(t, at, "vol", second, root(first)) {
		t.Error("the authority before is still believed")
	}
}

func TestTLSMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Options)
		code  refusal.Code
	}{
		"no files":      {func(o *Options) { o.TLSCert, o.TLSKey, o.TLSCA = "", "", "" }, refusal.Usage},
		"no ca":         {func(o *Options) { o.TLSCA = "" }, refusal.Usage},
		"missing":       {func(o *Options) { o.TLSKey += "x" }, refusal.Failed},
		"ca is a key":   {func(o *Options) { o.TLSCA = o.TLSKey }, refusal.Failed},
		"not a pair":    {func(o *Options) { o.TLSCert = o.TLSCA }, refusal.Failed},
		"taken address": {func(o *Options) { o.Listen = append(o.Listen, "nbds://192.0.2.1:1") }, refusal.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			withTLS(t, &o)
			o.Listen = []string{"nbds://127.0.0.1:0"}
			c.spoil(&o)
			o.Ready = func(string) { t.Error("it runs") }
			err := Run(context.Background(), o)
			if refusal.CodeOf(err) != c.code || refusal.From(err).Hint == "" {
				t.Errorf("code %d, want %d: %v", refusal.CodeOf(err), c.code, err)
			}
		})
	}
}

func TestPlainTCPInsideTheMachine(t *testing.T) {
	o := options(t)
	o.Listen, o.InsecureLoopback = []string{"nbd://127.0.0.1:0", "nbd://[::1]:0"}, true
	serveVol(t, o)
	s, err := client(o).Status(t.Context(), false)
	if err != nil || len(s.Listen) != 3 {
		t.Fatalf("it listens at %q (%v)", s.Listen, err)
	}
	for _, at := range s.Listen {
		if !opens(t, at, "vol", nil) {
			t.Errorf("the attacher is refused at %s", at)
		}
	}
}

func TestTLSKeyOpenToOthersIsTold(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		o := options(t)
		withTLS(t, &o)
		if err := os.Chmod(o.TLSKey, mode); err != nil {
			t.Fatal(err)
		}
		stop := run(t, o)
		s, err := client(o).Status(t.Context(), false)
		told := slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, o.TLSKey) })
		if err != nil || told != want {
			t.Errorf("mode %04o: %q (%v)", mode, s.Warnings, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}
