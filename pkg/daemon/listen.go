package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// listeners are all places where the daemon is reached.
type listeners struct {
	control []net.Listener
	nbd     []door
	metrics net.Listener // nil for none
}

// door is one place where NBD is served.
type door struct {
	listener net.Listener
	address  address
	entrance nbd.Entrance
}

// serve listens everywhere, and at the sockets that were given; what fails later comes out of the channel.
func (d *Daemon) serve(ctx context.Context, given []activated) (<-chan error, error) {
	ls := &listeners{}
	if err := d.listen(ls, given); err != nil {
		ls.close()
		return nil, err
	}
	failed := make(chan error, 1+len(ls.control)+len(ls.nbd))
	run := func(serve func() error) {
		go func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	for _, p := range ls.nbd {
		d.listens = append(d.listens, p.address.String())
	}
	if ls.metrics != nil {
		run(func() error { return d.serveMetrics(ls.metrics) })
	}
	for _, l := range ls.control {
		run(func() error { return d.api.Serve(l) })
	}
	for _, p := range ls.nbd {
		run(func() error { return d.nbd.Serve(ctx, p.listener, p.entrance) })
	}
	go d.watchProcessors(ctx)
	return failed, nil
}

// listen opens every place, or as many as it can.
func (d *Daemon) listen(ls *listeners, given []activated) error {
	files, err := openTLS(d.o)
	if err != nil {
		return err
	}
	if files != nil && files.openKey() != "" {
		d.warn(files.openKey())
	}
	for _, a := range given {
		if err := d.take(ls, files, a); err != nil {
			return err
		}
	}
	if err := d.listenInRun(ls, files); err != nil {
		return err
	}
	for _, text := range d.o.Listen {
		if err := d.listenAt(ls, files, text); err != nil {
			return err
		}
	}
	ls.metrics, err = listenMetrics(d.o.Metrics)
	return err
}

// take serves a socket that the service manager made.
func (d *Daemon) take(ls *listeners, files *tlsFiles, a activated) error {
	if a.control {
		ls.control = append(ls.control, a.listener)
		return nil
	}
	ls.nbd = append(ls.nbd, door{listener: a.listener})
	return d.furnish(&ls.nbd[len(ls.nbd)-1], files, a.address)
}

// listenInRun makes the two sockets that are always there, unless the service manager has made them.
func (d *Daemon) listenInRun(ls *listeners, files *tlsFiles) error {
	path := filepath.Join(d.o.Run, control.SocketControl)
	if !ls.has(path) {
		l, err := listenUnix(path, "--run", forAll)
		if err != nil {
			return err
		}
		ls.control = append(ls.control, l)
	}
	if ls.has(d.nbdPath()) {
		return nil
	}
	l, err := listenUnix(d.nbdPath(), "--run", forAll)
	if err != nil {
		return err
	}
	ls.nbd = append(ls.nbd, door{listener: l})
	return d.furnish(&ls.nbd[len(ls.nbd)-1], files, address{network: onUnix, path: d.nbdPath()})
}

// listenAt serves NBD at a URI of --listen.
func (d *Daemon) listenAt(ls *listeners, files *tlsFiles, text string) error {
	a, err := parseAddress(text)
	if err != nil {
		return err
	}
	var p door
	if err := d.furnish(&p, files, a); err != nil {
		return err // before anybody can connect
	}
	if p.listener, err = a.listen(); err != nil {
		return err
	}
	if at, is := p.listener.Addr().(*net.TCPAddr); is {
		p.address.port = uint32(at.Port) // where 0 was given the system has chosen
	}
	ls.nbd = append(ls.nbd, p)
	return nil
}

// furnish says who comes in at a place, and refuses a place where nobody would know who that is.
func (d *Daemon) furnish(p *door, files *tlsFiles, a address) error {
	p.address, p.entrance.Force = a, a.tls
	if files != nil {
		p.entrance.TLS = files.config(a.network == onTCP && a.tls)
	}
	switch {
	case a.tls && files == nil:
		return refusal.New(refusal.Usage, "make an authority and a certificate (README.md has the lines), and give --tls-cert, --tls-key and --tls-ca",
			"%s is TLS, for which there is no certificate", a)
	case a.network == onVsock:
		p.entrance.Peer = vsockPeer
	case a.network == onTCP && a.tls:
		p.entrance.Peer = stranger
	case a.network == onTCP:
		p.entrance.Peer = loopbackPeer
		return d.mayBePlain(a)
	}
	return nil
}

// stranger is who connects over a network, until a certificate says who it is.
func stranger(net.Conn) (nbd.Peer, error) { return nbd.Peer{UID: nbd.NoUID, GID: nbd.NoUID}, nil }

// mayBePlain refuses TCP without TLS, but for the address that only this machine reaches, if asked for.
func (d *Daemon) mayBePlain(a address) error {
	switch {
	case !a.isLoopback():
		return refusal.New(refusal.Usage, "give nbds://HOST:PORT, which is TLS; or 127.0.0.1 or [::1] as the host, with --insecure-loopback",
			"%s would carry data in clear over a network", a)
	case !d.o.InsecureLoopback:
		return refusal.New(refusal.Usage, "serve a unix socket, or TLS; or add --insecure-loopback if a client can do neither",
			"%s would carry data in clear over TCP", a)
	}
	return nil
}

// has tells whether a unix socket is among them already.
func (ls *listeners) has(path string) bool {
	for _, l := range ls.all() {
		if at, is := l.Addr().(*net.UnixAddr); is && at.Name == path {
			return true
		}
	}
	return false
}

func (ls *listeners) all() []net.Listener {
	all := append([]net.Listener{}, ls.control...)
	for _, p := range ls.nbd {
		all = append(all, p.listener)
	}
	return all
}

func (ls *listeners) close() {
	for _, l := range ls.all() {
		_ = l.Close()
	}
}
