// Package libvirt describes a server as a domain of libvirt's, for people who attach its disks themselves and run it there.
package libvirt

import (
	"errors"

	"nbdcrypt/pkg/control"
)

// Domain is the XML of a domain whose disks are the exports on a socket.
func Domain(s control.Server, socket string) (string, error) { return "", errors.ErrUnsupported }
