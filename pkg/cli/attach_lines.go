package cli

import (
	"fmt"
	"io"
	"strings"

	"nbdcrypt/pkg/control"
)

// printAttached prints the URI and what to type next, ready to be pasted into a shell.
func printAttached(w io.Writer, at control.Attached) {
	ro := func(words string) string { return map[bool]string{true: words}[at.ReadOnly] }
	fmt.Fprintf(w, "%s is attached%s: %s\n", at.Disk, ro(", read-only"), at.URI)
	if at.Device != nil {
		fmt.Fprintf(w, "device: %s\n", *at.Device)
	}
	export, socket, err := control.ParseURI(at.URI)
	if err != nil {
		return // the daemon may serve it elsewhere than on a socket; the URI has been printed
	}
	fmt.Fprintf(w, "\nnbd-client (as root):\n  nbd-client -unix %s /dev/nbd0 -N %s%s\n", quote(socket), quote(export), ro(" -readonly"))
	fmt.Fprintf(w, "QEMU:\n  -drive %s\n", quote("file="+qemu(at.URI)+",format=raw,if=virtio,discard=unmap"+ro(",readonly=on")))
	fmt.Fprintf(w, "nbdfuse, and a file system on a loop device (as root):\n  mkdir -p nbd mnt && nbdfuse%s nbd/disk %s &\n", ro(" -r"), quote(at.URI))
	if !at.ReadOnly {
		fmt.Fprintln(w, "  mkfs.ext4 nbd/disk    # the first time only")
	}
	fmt.Fprintf(w, "  mount -o loop%s nbd/disk mnt\n", ro(",ro"))
}

// qemu doubles commas: in an option's value a single one starts the next option.
func qemu(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:@%"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
