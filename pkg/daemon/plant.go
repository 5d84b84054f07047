//go:build !keytest

package daemon

import "nbdcrypt/pkg/volume"

// plant does nothing outside of the build that tests search for keys with.
func plant([]volume.LayerKey) {}
