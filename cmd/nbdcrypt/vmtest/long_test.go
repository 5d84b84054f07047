//go:build vm && long

package vmtest

// long tells that this is the long set, of which tests that take minutes are, too. Whole tests that are not in the short one have this tag.
const long = true
