package iobench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"

	"github.com/google/uuid"
	gonbd "github.com/pojntfx/go-nbd/pkg/server"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

// marker is the name under which the program is started as a server made of go-nbd.
const marker = "nbdcrypt-go-nbd"

// sector is that of disks for which nothing else was asked.
const sector = 512

// Main is that server, where this process is one, and tells so. It ends by a signal.
func Main() bool {
	if len(os.Args) != 4 || os.Args[0] != marker {
		return false
	}
	if err := serveGoNBD(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err) // the end of a server is looked at, not its exit code
	}
	return true
}

func goNBDCommand(_ *site, image, socket string, size int64) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{marker, image, socket, fmt.Sprint(size)}
	return cmd
}

// serveGoNBD serves a new encrypted disk, which lies in the folder dir, with go-nbd's own loop.
func serveGoNBD(dir, socket, size string) error {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	device, err := newDevice(context.Background(), dir, n)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			err := gonbd.Handle(conn, []*gonbd.Export{{Backend: device}}, nil)
			if err != nil && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintln(os.Stderr, "go-nbd:", err)
			}
		}()
	}
}

// newDevice is the device that our server serves, made without the daemon and under a key that nobody has.
func newDevice(ctx context.Context, dir string, size int64) (*cryptdev.Device, error) {
	files, err := pool.OpenFiles(dir)
	if err != nil {
		return nil, err
	}
	header := layer.Header{ID: uuid.New(), Encrypted: true, SectorSize: sector}
	if err := layer.Create(ctx, files, header, size); err != nil {
		return nil, err
	}
	top, err := layer.Open(ctx, files, header, size, layer.Options{})
	if err != nil {
		return nil, err
	}
	cipher, err := newCipher()
	if err != nil {
		return nil, err
	}
	return cryptdev.New([]cryptdev.Layer{{Layer: top, Cipher: cipher, Size: size}}, size, false), nil
}

func newCipher() (*xts.Cipher, error) {
	why := secret.Purpose{Kind: "benchmark", For: "go-nbd's server"}
	key, err := secret.RandomWork(xts.KeySize, why)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	schedules, err := secret.New(xts.Size, why)
	if err != nil {
		return nil, err
	}
	return xts.New(schedules.Bytes(), key.Bytes())
}
