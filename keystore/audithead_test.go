package keystore_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
)

// Rule C18: the head of the audit log is under a key that only the root key gives, as docs/keystore-format.md says, by another
// implementation.
func TestRuleC18_HeadIsUnderTheRootKey(t *testing.T) {
	root, store := randomKey(t), uuid.New()
	lp := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	info := append(lp([]byte("nbdcrypt/v1/audit-head")), lp(store[:])...)
	key, err := hkdf.Key(sha256.New, root.Bytes(), nil, string(info), 32)
	if err != nil {
		t.Fatal(err)
	}
	message := bytes.Repeat([]byte("m"), 68)
	h := hmac.New(sha256.New, key)
	h.Write(message)
	got, err := keystore.OpenedRoot(root, store).AuditMAC(message)
	if err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Errorf("%x, %v; want %x", got, err, h.Sum(nil))
	}
	other, err := keystore.OpenedRoot(root, uuid.New()).AuditMAC(message)
	if err != nil || bytes.Equal(got, other) {
		t.Errorf("another store has the same: %v", err)
	}
}
