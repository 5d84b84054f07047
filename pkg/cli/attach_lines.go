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
		printDevice(w, at, *at.Device)
		return
	}
	if file := fuseFile(at.Disk, at.Device, at.Mount); file != "" {
		printFuse(w, at, file)
		return
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

// printDevice prints what to do with a device of the kernel.
func printDevice(w io.Writer, at control.Attached, device string) {
	fmt.Fprintf(w, "device: %s\n", device)
	switch {
	case at.Mount != "":
		fmt.Fprintf(w, "mounted at: %s\n", at.Mount)
	case at.ReadOnly:
		fmt.Fprintf(w, "\na file system on it (as root):\n  mount -o ro %s mnt\n", device)
	default:
		fmt.Fprintf(w, "\na file system on it (as root):\n  mkfs.ext4 %s    # the first time only\n  mount %s mnt\n", device, device)
	}
	fmt.Fprintf(w, "\nto end it (as root):\n  nbdcrypt detach %s\n", detachWords(at))
}

// printFuse prints what to do with a disk that is a file.
func printFuse(w io.Writer, at control.Attached, file string) {
	fmt.Fprintf(w, "file: %s\n\nto end it:\n  nbdcrypt detach %s\n", file, detachWords(at))
}

// detachWords name the disk to detach. An export is PROJECT/DISK outside the default project.
func detachWords(at control.Attached) string {
	if project, _, other := strings.Cut(at.Export, "/"); other {
		return quote(at.Disk) + " --project " + quote(project)
	}
	return quote(at.Disk)
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
