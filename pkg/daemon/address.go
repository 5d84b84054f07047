package daemon

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// nbdPort is the port of NBD, by IANA.
const nbdPort = 10809

// The networks of an address.
const (
	onUnix  = "unix"
	onTCP   = "tcp"
	onVsock = "vsock"
)

// address is a place to serve NBD at, as an NBD URI has it.
type address struct {
	network string
	tls     bool // everybody has to upgrade
	path    string
	host    string // of TCP
	cid     uint32
	port    uint32
}

// parseAddress reads a URI of --listen.
func parseAddress(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, badAddress(text, "it is no URI")
	}
	scheme, isTLS := strings.CutPrefix(u.Scheme, "nbds")
	if !isTLS {
		scheme, isTLS = strings.TrimPrefix(u.Scheme, "nbd"), false
	}
	a := address{tls: isTLS}
	switch {
	case scheme == "+unix" && u.Host == "":
		return a.onUnix(text, u)
	case u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return address{}, badAddress(text, "only a client's URI names an export")
	case scheme == "" && (u.Scheme == "nbd" || isTLS):
		a.network, a.host = onTCP, u.Hostname()
		return a.withPort(text, u)
	case scheme == "+vsock":
		return a.onVsock(text, u)
	}
	return address{}, badAddress(text, "this build serves no such address")
}

func badAddress(text, why string) error {
	return refusal.New(refusal.Usage, "give nbds://HOST:PORT, nbd+unix:///?socket=PATH, nbd+vsock://CID:PORT, or one of the latter with nbds",
		"--listen %s: %s", text, why)
}

func (a address) onUnix(text string, u *url.URL) (address, error) {
	path := u.Query().Get("socket")
	if path == "" || strings.Trim(u.Path, "/") != "" {
		return address{}, badAddress(text, "it has to name a socket, and no export")
	}
	var err error
	a.network = onUnix
	a.path, err = filepath.Abs(path)
	return a, err
}

// onVsock takes "any" for every address of this machine.
func (a address) onVsock(text string, u *url.URL) (address, error) {
	a.network, a.cid = onVsock, unix.VMADDR_CID_ANY
	if host := u.Hostname(); host != "any" {
		cid, err := strconv.ParseUint(host, 10, 32)
		if err != nil {
			return address{}, badAddress(text, "a vsock address has a number, or any, before its port")
		}
		a.cid = uint32(cid)
	}
	return a.withPort(text, u)
}

func (a address) withPort(text string, u *url.URL) (address, error) {
	a.port = nbdPort
	if u.Port() == "" {
		return a, nil
	}
	limit := map[string]int{onTCP: 16, onVsock: 32}[a.network]
	port, err := strconv.ParseUint(u.Port(), 10, limit)
	if err != nil {
		return address{}, badAddress(text, "there is no such port")
	}
	a.port = uint32(port)
	return a, nil
}

// String is the address as a URI.
func (a address) String() string {
	nbd := map[bool]string{false: "nbd", true: "nbds"}[a.tls]
	port := strconv.FormatUint(uint64(a.port), 10)
	switch a.network {
	case onUnix:
		return nbd + strings.TrimPrefix(control.URI("", a.path), "nbd")
	case onVsock:
		cid := strconv.FormatUint(uint64(a.cid), 10)
		if a.cid == unix.VMADDR_CID_ANY {
			cid = "any"
		}
		return nbd + "+vsock://" + cid + ":" + port
	}
	return nbd + "://" + net.JoinHostPort(a.host, port)
}

// isLoopback tells an address that only this machine reaches. A name is none: what it means is up to others.
func (a address) isLoopback() bool {
	ip, err := netip.ParseAddr(a.host)
	return err == nil && a.network == onTCP && ip.IsLoopback()
}

// listen opens it.
func (a address) listen() (net.Listener, error) {
	switch a.network {
	case onUnix:
		return listenUnix(a.path, "--listen", forAll)
	case onVsock:
		return a.listened(listenVsock(a.cid, a.port))
	}
	var how net.ListenConfig
	if !a.tls {
		how.SetMultipathTCP(false) // which could outlive the one connection that tells whose it is
	}
	return a.listened(how.Listen(context.Background(), "tcp", net.JoinHostPort(a.host, strconv.FormatUint(uint64(a.port), 10))))
}

func (a address) listened(l net.Listener, err error) (net.Listener, error) {
	if err != nil {
		return nil, refusal.New(refusal.Failed, "choose another address for --listen", "%s can't be served: %w", a, err)
	}
	return l, nil
}
