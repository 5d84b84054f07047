package keystore

import "nbdcrypt/pkg/secret"

// DrawDEK draws a DEK that the key store does not keep: for bytes that leave it, known by the id of a layer of their own.
func DrawDEK(layer string) (*secret.Key, error) {
	return randomDEK(Record{Holder: Holder{Kind: "export", ID: layer}, Layer: layer})
}
