package blockdev

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
)

// What linux/nbd-netlink.h names: the family, its commands, and their attributes.
const (
	familyName    = "nbd"
	familyVersion = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3

	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrClientFlags = 6
	attrSockets     = 7
	attrDeadTimeout = 8
	attrBackend     = 10

	socketItem = 1
	socketFD   = 1
)

// connectMessage are the attributes of CONNECT. The client flags are none: the device outlives whoever has it open, and stays in /dev.
func (d *Device) connectMessage() ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(d.index))
	e.Uint64(attrSize, uint64(d.size))
	e.Uint64(attrBlockSize, uint64(d.config.BlockSize))
	e.Uint64(attrServerFlags, uint64(d.flags))
	e.Uint64(attrClientFlags, 0)
	d.limits(e)
	e.String(attrBackend, d.config.Identifier)
	sockets(e, d.links...)
	return encoded(e)
}

// limits are how long the kernel waits.
func (d *Device) limits(e *netlink.AttributeEncoder) {
	e.Uint64(attrTimeout, seconds(d.config.Timeout))
	limit := d.config.Reconnect
	if limit > 0 {
		limit += patience
	}
	e.Uint64(attrDeadTimeout, seconds(limit))
}

// limitsMessage are the attributes of RECONFIGURE that change the limits alone.
func (d *Device) limitsMessage() ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(d.index))
	e.String(attrBackend, d.config.Identifier)
	d.limits(e)
	return encoded(e)
}

// reconfigureMessage are the attributes of RECONFIGURE, which gives a new connection for one that died.
func (d *Device) reconfigureMessage(l *link) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(d.index))
	e.String(attrBackend, d.config.Identifier)
	sockets(e, l)
	return encoded(e)
}

// disconnectMessage are the attributes of DISCONNECT.
func disconnectMessage(index int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	return encoded(e)
}

func sockets(e *netlink.AttributeEncoder, links ...*link) {
	e.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, l := range links {
			list.Nested(socketItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(socketFD, uint32(l.socket.Fd()))
				return nil
			})
		}
		return nil
	})
}

func encoded(e *netlink.AttributeEncoder) ([]byte, error) {
	data, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("encoding a message to the kernel: %w", err)
	}
	return data, nil
}

// seconds rounds up: the kernel counts whole ones, and 0 means something else.
func seconds(d time.Duration) uint64 {
	return uint64((d + time.Second - 1) / time.Second)
}
