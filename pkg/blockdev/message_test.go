package blockdev

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

// told is what a message says, by attribute.
func told(t *testing.T, data []byte) map[uint16]any {
	t.Helper()
	said := map[uint16]any{}
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		t.Fatal(err)
	}
	for d.Next() {
		switch d.Type() {
		case attrIndex:
			said[d.Type()] = uint64(d.Uint32())
		case attrBackend:
			said[d.Type()] = d.String()
		case attrSockets:
			var fds []int
			d.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(item *netlink.AttributeDecoder) error {
						for item.Next() {
							fds = append(fds, int(item.Uint32()))
						}
						return nil
					})
				}
				return nil
			})
			said[d.Type()] = fds
		default:
			said[d.Type()] = d.Uint64()
		}
	}
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	return said
}

// file is any open file that is not a socket.
func file(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMessages(t *testing.T) {
	a, b := &link{socket: file(t)}, &link{socket: file(t)}
	fds := []int{int(a.socket.Fd()), int(b.socket.Fd())}
	d := &Device{index: 7, size: 1 << 41, flags: 0x16d, links: []*link{a, b}, config: Config{BlockSize: 4096, Timeout: 1500 * time.Millisecond,
		Reconnect: 5 * time.Minute, Identifier: "nbdcrypt:x"}}
	data, err := d.connectMessage()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint16]any{attrIndex: uint64(7), attrSize: uint64(1 << 41), attrBlockSize: uint64(4096), attrServerFlags: uint64(0x16d), attrClientFlags: uint64(0),
		attrTimeout: uint64(2), attrDeadTimeout: uint64(360), attrBackend: "nbdcrypt:x", attrSockets: fds}
	if got := told(t, data); !reflect.DeepEqual(got, want) {
		t.Errorf("connect says %v, want %v", got, want)
	}
	// A size in the same message as a socket, or two sockets in one, would not do what they seem to.
	if data, err = d.reconfigureMessage(b); err != nil {
		t.Fatal(err)
	}
	if got, want := told(t, data), (map[uint16]any{attrIndex: uint64(7), attrBackend: "nbdcrypt:x", attrSockets: fds[1:]}); !reflect.DeepEqual(got, want) {
		t.Errorf("reconfigure says %v, want %v", got, want)
	}
	if data, err = disconnectMessage(7); err != nil {
		t.Fatal(err)
	}
	if got, want := told(t, data), (map[uint16]any{attrIndex: uint64(7)}); !reflect.DeepEqual(got, want) {
		t.Errorf("disconnect says %v, want %v", got, want)
	}
}

// No reconnecting is said as such: the kernel would take a minute for one.
func TestNoReconnecting(t *testing.T) {
	d := &Device{config: Config{Timeout: DefaultTimeout}}
	data, err := d.connectMessage()
	if err != nil {
		t.Fatal(err)
	}
	if got := told(t, data)[attrDeadTimeout]; got != uint64(0) {
		t.Errorf("the kernel is told to wait %v s", got)
	}
}
