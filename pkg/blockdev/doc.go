// Package blockdev has the Linux kernel take an export as a block device, /dev/nbdN: it does the NBD handshake, hands the sockets over by
// generic netlink, gives new ones after a server has gone, and tells who uses a device before it is taken away. It needs root and the
// module nbd, and knows nothing of disks or keys.
package blockdev
