package keystore

import (
	"context"

	"nbdcrypt/pkg/secret"
)

// way is how a slot of one kind gives its secret, under which the root key is wrapped.
type way interface {
	// lines are the kind's own lines in the slot's file. The wrapped key is bound to them.
	lines() string
	// check refuses what nobody should follow, though the file is whole.
	check() error
	// detail tells people how it opens.
	detail() string
	// automatic tells that it opens without anybody.
	automatic() bool
	// ready tells why it could not open now, as far as that is known without trying.
	ready() error
	// release gives the slot's secret, which is the caller's to destroy. given is what a person gave for it, and nil where
	// nobody is asked; what is wrong in a way that only this slot can tell is errBlob.
	release(ctx context.Context, given *secret.Key) (*secret.Key, error)
}

// slotKinds read the lines of each kind.
var slotKinds = map[string]func(*lines) way{
	kindPassphrase: parsePassphrase,
	kindPKCS11:     parsePKCS11,
	kindRecovery:   parseRecovery,
	kindCredential: parseCredential,
	kindTPM:        parseTPM,
}
