package recorder

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"nbdcrypt/nbd"
)

// URIs are where the disk is served, and the marks beside it.
type URIs struct{ Pool, Marks string }

// Serve exports the disk on a unix socket, and a disk for marks that m hears. It returns what ends that.
func (d *Disk) Serve(socket string, m Marks) (at URIs, end func() error, err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return URIs{}, nil, err
	}
	server := nbd.NewServer(exports{nbd.NewExport("pool", d, nbd.Options{}), nbd.NewExport("marks", m, nbd.Options{})}, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, nbd.Entrance{}) }()
	end = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return errors.Join(server.Shutdown(ctx), <-served)
	}
	return URIs{"nbd+unix:///pool?socket=" + socket, "nbd+unix:///marks?socket=" + socket}, end, nil
}

// exports are open to everybody.
type exports []*nbd.Export

func (x exports) List(context.Context, nbd.Peer) (infos []nbd.Info, err error) {
	for _, e := range x {
		infos = append(infos, nbd.Info{Name: e.Name()})
	}
	return infos, nil
}

func (x exports) Open(_ context.Context, _ nbd.Peer, name string) (*nbd.Export, error) {
	for _, e := range x {
		if e.Name() == name {
			return e, nil
		}
	}
	return nil, nbd.ErrUnknownExport
}
