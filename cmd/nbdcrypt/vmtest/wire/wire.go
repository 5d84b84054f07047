// Package wire is what a test and the guest in its virtual machine say to each other: JSON lines over a virtio-serial port. Many commands
// run at once, told apart by their numbers.
package wire

// Port is the name of the port, in QEMU's command line and in the guest's /sys/class/virtio-ports.
const Port = "nbdcrypt.guest"

// What a request asks for.
const (
	Run  = "run"  // the script
	Kill = "kill" // what the request ID runs, at once
	Put  = "put"  // Data at the end of Path, which First empties
	Get  = "get"  // what is in Path
	Off  = "off"  // the machine, after syncing
)

// Piece is how much of a file goes in one line.
const Piece = 256 << 10

// Request goes to the guest.
type Request struct {
	ID     uint64 `json:"id"`
	Op     string `json:"op"`
	Script string `json:"script,omitempty"`
	Path   string `json:"path,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	First  bool   `json:"first,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

// Answer comes from the guest: any number with Out, the last one with End. The very first says that the guest is ready, with the number 0.
type Answer struct {
	ID    uint64 `json:"id"`
	Out   []byte `json:"out,omitempty"`
	End   bool   `json:"end,omitempty"`
	Code  int    `json:"code,omitempty"`  // the script's exit code, 128+N where signal N ended it
	Error string `json:"error,omitempty"` // why it could not be done at all
}
