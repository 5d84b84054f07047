package blockdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/refusal"
)

// Config says what is connected to which device.
type Config struct {
	// Socket is the server's unix socket, Export the name of what it serves there.
	Socket, Export string
	// Path is /dev/nbdN.
	Path string
	// Connections is how many there are, 0 for one.
	Connections int
	// Timeout is how long the kernel waits for an answer before it takes a connection for dead. What was in flight on one that died is sent
	// again after it, too. 0 is DefaultTimeout.
	Timeout time.Duration
	// Reconnect is how long whoever keeps the device goes on trying to reconnect it; the kernel lets requests wait somewhat longer, so that it
	// never gives up, and is then revived over what it dropped. 0 is not at all: requests fail as soon as all connections are dead.
	Reconnect time.Duration
	// BlockSize is the logical block size, 0 for 512.
	BlockSize int
	// Identifier names what is behind the device, in sysfs and to those who reconnect it. It should be somebody's alone.
	Identifier string
}

const (
	// DefaultTimeout is that of Config.
	DefaultTimeout = 30 * time.Second
	// patience is how much longer than Reconnect the kernel waits.
	patience = time.Minute
)

// Device is a block device that we have connected.
type Device struct {
	config Config
	index  int
	lock   *os.File
	owner  uint32 // who serves it
	size   int64
	flags  uint16

	mu     sync.Mutex
	links  []*link // in the order in which the kernel got them
	closed bool
	// adopted tells that the kernel has connections that are not among links; spare is one that it was offered for those of them that die.
	adopted bool
	spare   *link
}

// Path is /dev/nbdN.
func (d *Device) Path() string { return d.config.Path }

// Identifier is what Config named it.
func (d *Device) Identifier() string { return d.config.Identifier }

// Free names a device that nobody has connected. Somebody else may be faster: Connect says EBUSY then.
func Free() (string, error) {
	k, err := dial(context.Background())
	if err != nil {
		return "", err
	}
	defer k.close()
	return here.free()
}

// Connect opens the export and hands it to the kernel. The device is ours alone to keep until Close, or until this process ends.
func Connect(ctx context.Context, c Config) (*Device, error) {
	d, err := newDevice(c)
	if err != nil {
		return nil, err
	}
	if err := d.connect(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if c.Connections > 1 {
		go d.listen() // before anybody reads: that may have to wait for it
	}
	if err := d.appear(ctx); err != nil {
		return nil, errors.Join(err, d.Disconnect(context.WithoutCancel(ctx)), d.Close())
	}
	return d, nil
}

// newDevice locks the device for us.
func newDevice(c Config) (*Device, error) {
	index, err := indexOf(c.Path)
	if err != nil {
		return nil, err
	}
	c.Connections = max(c.Connections, 1)
	if c.BlockSize == 0 {
		c.BlockSize = 512
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	lock, err := here.lock(c.Path)
	if err != nil {
		return nil, err
	}
	return &Device{config: c, index: index, lock: lock}, nil
}

// connect opens as many connections as there should be and gives them to the kernel, which holds their sockets from then on, too.
func (d *Device) connect(ctx context.Context) error {
	for range d.config.Connections {
		l, err := open(ctx, d.config)
		if err != nil {
			return err
		}
		d.links = append(d.links, l)
	}
	first := d.links[0]
	d.owner, d.size, d.flags = first.owner, first.info.Size, first.info.Flags
	if err := d.fits(); err != nil {
		return err
	}
	for _, l := range d.links {
		if err := d.like(l); err != nil {
			return err
		}
	}
	data, err := d.connectMessage()
	if err != nil {
		return err
	}
	return refused(d.config.Path, "connecting", once(ctx, cmdConnect, data))
}

// fits refuses what the kernel would only call invalid.
func (d *Device) fits() error {
	switch c := d.config; {
	case c.Connections > 1 && d.flags&nbdclient.CanMultiConn == 0:
		return refusal.New(refusal.Usage, "use --connections 1", "export %s takes one connection at a time", c.Export)
	case d.size == 0 || d.size%int64(c.BlockSize) != 0:
		return fmt.Errorf("export %s has %d bytes, which is no number of blocks of %d bytes", c.Export, d.size, c.BlockSize)
	}
	return nil
}

// Close lets go of the device, which stays as it is.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	errs := []error{d.lock.Close()}
	for _, l := range d.links {
		errs = append(errs, l.socket.Close())
	}
	if d.spare != nil {
		errs = append(errs, d.spare.socket.Close())
	}
	d.links, d.spare = nil, nil
	return errors.Join(errs...)
}

// appearTime is how long /dev may take to have a node of a device that the driver has just made.
const appearTime = 10 * time.Second

// appear waits until the device can be opened: where it is new udev makes its node after the kernel has said that it is there.
func (d *Device) appear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, appearTime)
	defer cancel()
	return wait(ctx, d.config.Path+" did not appear", func() (bool, error) {
		f, err := os.Open(d.config.Path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, f.Close()
	})
}

// wait asks until something is so.
func wait(ctx context.Context, otherwise string, is func() (bool, error)) error {
	for {
		if yes, err := is(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", otherwise, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
