// Package keeper stays with a block device that the kernel has of an attached disk. It holds no key: when the daemon behind the device has
// gone it waits for the next one, has it attach the disk again, and gives the kernel new connections; a mounted file system goes on. Where
// that may not be, it disconnects the device and says why.
package keeper
