package control

import (
	"context"
	"time"
)

// KeyRotation asks for a CMK to be rotated every so many days, or no more where Days is 0.
type KeyRotation struct {
	Days int `json:"days"`
}

// KeyImport brings key material to a CMK: Material was wrapped with the wrapping key that came with the token.
type KeyImport struct {
	Token    string     `json:"token"`
	Material []byte     `json:"material"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// ImportParameters are what key material is wrapped with (an RSA key as PEM), and what it is brought with.
type ImportParameters struct {
	Key         Key       `json:"key"`
	WrappingKey string    `json:"wrapping_key"`
	Token       string    `json:"token"`
	Until       time.Time `json:"until"`
}

// DiskRewrap asks for a disk to be put under another CMK, or the newest version of its own.
type DiskRewrap struct {
	Key string `json:"key"`
}

// KeyRewrap asks for that for all that is under a CMK; To is empty for its own newest version.
type KeyRewrap struct {
	To string `json:"to,omitempty"`
}

// Rewrapped is what `key rewrap` prints. Uses counts what was under the key, Disks the disks of them, Rewrapped those for which there was
// something to do.
type Rewrapped struct {
	Key       string         `json:"key"`
	To        string         `json:"to"`
	Version   int            `json:"version"`
	Disks     int            `json:"disks"`
	Uses      int            `json:"uses"`
	Rewrapped int            `json:"rewrapped"`
	Failed    []RewrapFailed `json:"failed"`
	Warnings  []string       `json:"warnings,omitempty"`
}

// RewrapFailed is something that stayed as it was, and why.
type RewrapFailed struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Name  string `json:"name"`
	Error *Error `json:"error"`
}

// KeyRotate adds a version of key material to a CMK.
func (c *Client) KeyRotate(ctx context.Context, key string) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyRotate, name: key})
}

// KeyRotation has that done every so many days; 0 for never.
func (c *Client) KeyRotation(ctx context.Context, key string, days int) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyRotation, name: key, body: KeyRotation{Days: days}})
}

// KeyPrepare makes the parameters for importing key material.
func (c *Client) KeyPrepare(ctx context.Context, key string) (ImportParameters, error) {
	return ask[ImportParameters](ctx, c, call{route: RouteKeyPrepare, name: key})
}

// KeyImport imports it.
func (c *Client) KeyImport(ctx context.Context, key string, what KeyImport) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyImport, name: key, body: what})
}

// KeyDeleteMaterial deletes it again; yes confirms that what is under the key can't be attached then.
func (c *Client) KeyDeleteMaterial(ctx context.Context, key string, yes bool) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyDeleteMaterial, name: key, query: flags(QueryYes, yes)})
}

// KeyRewrap puts all that is under a CMK under another, or its newest version.
func (c *Client) KeyRewrap(ctx context.Context, key, to string) (Rewrapped, error) {
	return ask[Rewrapped](ctx, c, call{route: RouteKeyRewrap, name: key, body: KeyRewrap{To: to}})
}

// DiskRewrap does so for one disk.
func (c *Client) DiskRewrap(ctx context.Context, disk, key string) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskRewrap, name: disk, body: DiskRewrap{Key: key}})
}
