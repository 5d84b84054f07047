// Package nbd is the server side of the NBD protocol: handshake, transmission and replies over any Device.
// What it owes its clients is listed, item by item, in docs/nbd-conformance.md.
//
// A connection is one goroutine, the loop (session): it reads many requests at once, judges each in one place (check), does
// at once what does not wait for storage, hands the rest to up to 16 workers, and sends the answers of all that it has read
// together (sender). Long requests go in pieces that stay in the second-level cache on their way. The device is called in
// execute, readNow and extent alone, and only past the export's gate. A client that stalls holds its own connection and
// nothing else.
//
// A device that can tell which reads would wait (NowaitReader) is served by the loop as far as it does not; any other by
// workers alone.
//
// What it does not promise: order between requests in flight that overlap, which the protocol leaves to the client;
// that a part of a write that failed is not written; and that a write longer than a piece is written as a whole or not at
// all when its client vanishes.
package nbd
