// Package nbd is the server side of the NBD protocol: handshake, transmission and replies over any Device.
// What it owes its clients is listed, item by item, in docs/nbd-conformance.md.
package nbd
