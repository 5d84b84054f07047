//go:build selftest_broken

package xts

// reduction is wrong, for a test that wants to see a broken build refuse to start (rule C19). Nothing else sets the tag.
const reduction = 0x86
