package nbd

import "nbdcrypt/nbd/internal/wire"

// abort ends the session. A client that does not wait for the ACK is gone already, which is no error (spec item 5).
func (o option) abort() error {
	if err := o.conn.in.skip(int64(o.Length)); err != nil {
		return err
	}
	_ = o.reply(wire.RepAck, nil)
	return nil
}
