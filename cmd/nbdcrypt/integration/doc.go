// Package integration holds the tests that run the real binary against real clients, kernels and file systems: rules
// and promises as a user would see them. They need root, Linux and the Debian packages in packages.txt, so they are built
// only with the tag `integration`; `make test` installs what is missing and runs them. None of them is ever skipped: what is
// missing is a failure that names its package.
package integration
