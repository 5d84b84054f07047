// Package nbdclient is a small NBD client: fixed newstyle over a unix socket, simple replies, many requests in flight.
// The demo and the tests use it; it is not meant to be a fast or a complete one. What a server says is checked before
// it is believed: nothing is allocated from a length on the wire.
package nbdclient
