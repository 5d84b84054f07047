package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"nbdcrypt/pkg/refusal"
)

// tlsFiles are the daemon's certificate, its key, and the authority that signs clients' certificates. They are read again when they
// have changed, so that a certificate can be renewed under a running daemon.
type tlsFiles struct {
	cert, key, ca string
	log           *slog.Logger

	mu      sync.Mutex
	seen    [3]fileMark
	pair    tls.Certificate
	clients *x509.CertPool
}

// fileMark tells one state of a file from another.
type fileMark struct {
	size    int64
	changed time.Time
}

// openTLS reads the files; nil where there are none.
func openTLS(o Options) (*tlsFiles, error) {
	if o.TLSCert == "" && o.TLSKey == "" && o.TLSCA == "" {
		return nil, nil
	}
	f := &tlsFiles{cert: o.TLSCert, key: o.TLSKey, ca: o.TLSCA, log: o.Log}
	if o.TLSCert == "" || o.TLSKey == "" || o.TLSCA == "" {
		return nil, refusal.New(refusal.Usage, "give all of --tls-cert, --tls-key and --tls-ca", "TLS needs a certificate, its key, and the authority of the clients' certificates")
	}
	f.seen = f.look()
	if err := f.read(); err != nil {
		return nil, refusal.New(refusal.Failed, "name files in PEM that this user may read with --tls-cert, --tls-key and --tls-ca", "TLS can't be served: %w", err)
	}
	return f, nil
}

// openKey tells in words that others may read the key; empty where they may not.
func (f *tlsFiles) openKey() string {
	info, err := os.Stat(f.key)
	if err != nil || info.Mode().Perm()&0o007 == 0 {
		return ""
	}
	return fmt.Sprintf("the private key of TLS, %s, is open to other users (mode %04o): run `chmod 600 %s`", f.key, info.Mode().Perm(), f.key)
}

// look marks the files as they are now.
func (f *tlsFiles) look() (marks [3]fileMark) {
	for i, path := range []string{f.cert, f.key, f.ca} {
		if info, err := os.Stat(path); err == nil {
			marks[i] = fileMark{info.Size(), info.ModTime()}
		}
	}
	return marks
}

// read takes the files over if all is well with them.
func (f *tlsFiles) read() error {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(f.ca)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificate", f.ca)
	}
	f.pair, f.clients = pair, clients
	return nil
}

// refresh reads the files where they have changed. Those that are no good, perhaps as they are being written, leave what was.
func (f *tlsFiles) refresh() (tls.Certificate, *x509.CertPool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if marks := f.look(); marks != f.seen {
		f.seen = marks
		if err := f.read(); err != nil {
			f.log.Warn("the files of TLS have changed and can't be used; those before stay", "err", err)
		} else {
			f.log.Info("the files of TLS were read again")
		}
	}
	return f.pair, f.clients
}

// config is for an entrance; require refuses clients without a certificate. There are no session tickets: each connection shows its
// certificate anew.
func (f *tlsFiles) config(require bool) *tls.Config {
	auth := tls.VerifyClientCertIfGiven
	if require {
		auth = tls.RequireAndVerifyClientCert
	}
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pair, clients := f.refresh()
		return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: auth, MinVersion: tls.VersionTLS12,
			SessionTicketsDisabled: true}, nil
	}}
}
