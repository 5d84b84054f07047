package keystore

import (
	"bytes"
	"fmt"

	"nbdcrypt/pkg/token"
)

// The header of a store that a token holds has a version of its own: builds from before there were any refuse it by that.
const (
	heldVersion   = "2"
	heldFirstLine = storeKind + " " + heldVersion + "\n"
	localSize     = keySize + blobOverhead
)

func (h header) encodeHeld() ([]byte, error) {
	text := fmt.Sprintf("%sstore %s\nroot %x\ntoken %s\nlocal %x\n", heldFirstLine, h.store, h.rootID, h.token, h.local)
	sum, err := textSum([]byte(text))
	return []byte(text + "sum " + sum + "\n"), err
}

// parseHeldHeader takes what encodeHeld writes, byte for byte.
func parseHeldHeader(b []byte) (h header, err error) {
	l := lines{rest: b}
	l.next(storeKind)
	h.store = l.id("store")
	copy(h.rootID[:], l.hex("root", rootIDSize))
	h.token = l.next("token")
	h.local = l.hex("local", localSize)
	again, err := h.encode()
	if err == nil && (l.bad || !token.IsURI(h.token) || !bytes.Equal(again, b)) {
		err = fmt.Errorf("%w: it is cut short, or a line is damaged", errText)
	}
	if err != nil {
		return header{}, err
	}
	return h, nil
}
