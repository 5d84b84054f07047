package control

import (
	"fmt"
	"net/url"
	"strings"
)

// The sockets in the run directory.
const (
	SocketControl = "control.sock"
	SocketNBD     = "nbd.sock"
)

// ExportName is what a disk is called on the wire: DISK in the default project, PROJECT/DISK elsewhere.
func ExportName(project, disk string) string {
	if project == DefaultProject || project == "" {
		return disk
	}
	return project + "/" + disk
}

// URI is the NBD URI of an export on a unix socket (doc/uri.md of the NBD project). Both parts are
// percent-encoded; a slash stays as it is.
func URI(export, socket string) string {
	return "nbd+unix:///" + escape(export, "/") + "?socket=" + escape(socket, "/")
}

// ParseURI takes apart what URI made.
func ParseURI(uri string) (export, socket string, err error) {
	path, isURI := strings.CutPrefix(uri, "nbd+unix:///")
	path, query, hasSocket := strings.Cut(path, "?socket=")
	if !isURI || !hasSocket {
		return "", "", fmt.Errorf("control: %q is not nbd+unix:///EXPORT?socket=PATH", uri)
	}
	// PathUnescape in the query too: unlike a form's, its "+" is a plus.
	if export, err = url.PathUnescape(path); err != nil {
		return "", "", fmt.Errorf("control: export of %q: %w", uri, err)
	}
	if socket, err = url.PathUnescape(query); err != nil {
		return "", "", fmt.Errorf("control: socket of %q: %w", uri, err)
	}
	return export, socket, nil
}

// escape percent-encodes every byte of s that is neither unreserved (RFC 3986, 2.3) nor in keep.
func escape(s, keep string) string {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(unreserved, c) >= 0 || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
