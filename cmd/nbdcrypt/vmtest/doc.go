// Package vmtest holds the tests that need a kernel of their own: NBD devices, dm-crypt, power cuts, machines that boot from an encrypted disk. They are
// built only with the tag `vm`, and need the Debian packages in packages.txt; `make test` runs a short set of them, `make test-vm` the long one. None of
// them is ever skipped.
package vmtest
