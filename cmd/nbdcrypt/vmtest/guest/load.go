package main

import (
	"fmt"
	"os"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
)

// writeLoad changes a target until it is stopped, or holds it against what was acknowledged.
func writeLoad(args []string) int {
	if err := load.Command(args, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
