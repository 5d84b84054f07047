//go:build !pkcs11

package main

import "nbdcrypt/pkg/token"

// operate is what is left without a module.
func operate(token.Request, []byte) (int, error) {
	return 0, fail(token.Away, "this %s was built without cgo and loads no module: `make pkcs11` builds one that does", token.Helper)
}
