//go:build vm && !long

package vmtest

// long tells that this is the long set.
const long = false
