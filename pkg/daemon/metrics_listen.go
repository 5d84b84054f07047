package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// listenMetrics listens where --metrics says; nil where it says nothing. Nobody is asked who they are there, and the names of
// disks go over the wire in clear: hence only addresses of this machine.
func listenMetrics(at string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(at, "unix:")
	switch {
	case at == "":
		return nil, nil
	case isUnix && path != "":
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("daemon: %w", err)
		}
		return listenUnix(path, "--metrics", forGroup)
	case isUnix:
		return nil, badMetrics(at, errors.New("it names no path"))
	}
	addr, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		return nil, badMetrics(at, err)
	}
	if !addr.IP.IsLoopback() {
		return nil, badMetrics(at, errors.New("other machines could read there which disks this one has"))
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "choose another port for --metrics", "metrics can't be served at %s: %w", at, err)
	}
	return l, nil
}

func badMetrics(at string, err error) error {
	return refusal.New(refusal.Usage, "give --metrics 127.0.0.1:PORT or unix:PATH", "metrics can't be served at %q: %w", at, err)
}

// newMetricsServer makes the server behind --metrics. It serves nothing else, and no more connections than one user of the control
// socket may have.
func (d *Daemon) newMetricsServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle(control.RouteMetrics, meantForHere(d.scrape))
	present := newGuests()
	return &http.Server{
		Handler: mux, DisableGeneralOptionsHandler: true, ConnState: present.follow,
		ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if !present.admit(c, nbd.Peer{UID: nbd.NoUID}) {
				_ = c.Close() // what the server reads from it then is its end
			}
			return ctx
		},
	}
}

// meantForHere refuses who asks over TCP for a name other than localhost. A web page may come from a name that its owner then points at this
// machine; a user's browser would let it read the answer.
func meantForHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := (&url.URL{Host: r.Host}).Hostname()
		_, isName := netip.ParseAddr(host)
		_, isTCP := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if isTCP && isName != nil && host != "localhost" {
			http.Error(w, "ask for localhost, or for the address that --metrics names", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serveMetrics serves until the daemon begins to stop.
func (d *Daemon) serveMetrics(l net.Listener) error {
	server := d.newMetricsServer()
	forget := context.AfterFunc(d.life, func() { _ = server.Close() })
	defer forget()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
