// Package nbd is the server side of the NBD protocol: handshake, transmission and replies over any Device.
// What it owes its clients is listed, item by item, in docs/nbd-conformance.md.
//
// A connection has one reader, which decodes requests and judges them in one place (check); up to 16 workers, which
// are the only way to the device (execute) and pass the export's gate; and one writer, which sends what is ready in one
// system call. A client that stalls holds its own connection and nothing else.
//
// What it does not promise: order between requests in flight that overlap, which the protocol leaves to the client;
// and that a part of a write that failed is not written.
package nbd
