package demo

import (
	"context"
	"fmt"

	"nbdcrypt/nbd/nbdclient"
)

// rawNBD speaks the protocol itself: no tools, no rights.
type rawNBD struct{ why string }

func (m rawNBD) name() string {
	return "Without a file system, because: " + m.why + ".\n    Instead this program speaks NBD itself and writes bytes straight to the disk."
}

func (m rawNBD) put(ctx context.Context, t *tour, uri string, letters []letter) error {
	return connected(ctx, uri, func(c *nbdclient.Client) error {
		t.tell.note("(speaking NBD to " + t.short(uri) + ")")
		for _, l := range letters {
			if err := write(t, c, l); err != nil {
				return err
			}
		}
		return flush(t, c)
	})
}

func (m rawNBD) get(ctx context.Context, t *tour, uri string, letters []letter) (read []letter, err error) {
	err = connected(ctx, uri, func(c *nbdclient.Client) error {
		t.tell.note("(speaking NBD to " + t.short(uri) + ")")
		for _, l := range letters {
			l.text = make([]byte, len(l.text))
			if _, err := c.ReadAt(l.text, l.at); err != nil {
				return fmt.Errorf("reading %s: %w", l.name, err)
			}
			read = append(read, l)
		}
		return nil
	})
	return read, err
}

// write writes one letter and says so.
func write(t *tour, c *nbdclient.Client, l letter) error {
	if _, err := c.WriteAt(l.text, l.at); err != nil {
		return fmt.Errorf("writing %s: %w", l.name, err)
	}
	t.tell.done(fmt.Sprintf("written: %s, %d bytes at byte %d, sha256 %s", l.name, len(l.text), l.at, l.sum()))
	return nil
}

func flush(t *tour, c *nbdclient.Client) error {
	if err := c.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	t.tell.done("flushed: the server says that all of it is on the disk")
	return nil
}

// connected does something on a connection. When ctx ends the connection does, and with it every request.
func connected(ctx context.Context, uri string, do func(*nbdclient.Client) error) error {
	c, err := nbdclient.Dial(ctx, uri)
	if err != nil {
		return fmt.Errorf("opening %s: %w", uri, err)
	}
	defer context.AfterFunc(ctx, func() { _ = c.Disconnect() })()
	defer c.Disconnect()
	return do(c)
}
