package control

import (
	"context"
	"net/url"
	"time"
)

// QueryName names what a call makes, where the call can't have a body.
const QueryName = "name"

// Slot is one way to open the root key: what `root slot list` prints an array of.
type Slot struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Detail is how it opens, the key file's path for one, or why it can't.
	Detail string `json:"detail"`
	// Automatic tells that it opens at the daemon's start, without anybody.
	Automatic bool `json:"automatic"`
	// Present is false where it could not open anything now: its file is missing.
	Present bool `json:"present"`
	// Created is null for a key file that is missing.
	Created *time.Time `json:"created"`
}

// The kinds of slots.
const (
	SlotKeyFile    = "key-file"
	SlotPassphrase = "passphrase"
)

// RootState is what `root unlock` and `root lock` print.
type RootState struct {
	Locked bool `json:"locked"`
	// Changed is false where it was so already.
	Changed bool `json:"changed"`
	// Slot is what opened the root key in this call.
	Slot *Slot `json:"slot"`
	// Slots are the ways to open it, those that could not be used now too.
	Slots []Slot `json:"slots"`
	// Attached is how many disks are attached: locking leaves them as they are.
	Attached int `json:"attached"`
}

// RootUnlock opens the root key without a person, by the key file.
func (c *Client) RootUnlock(ctx context.Context) (RootState, error) {
	return ask[RootState](ctx, c, call{route: RouteRootUnlock})
}

// RootPassphrase opens the root key by a passphrase, which is wiped when it returns. Where the root key is open already the
// passphrase does not leave the process.
func (c *Client) RootPassphrase(ctx context.Context, passphrase []byte) (RootState, error) {
	return askWith[RootState](ctx, c, call{route: RouteRootPassphrase}, passphrase)
}

// RootLock wipes the root key from memory.
func (c *Client) RootLock(ctx context.Context) (RootState, error) {
	return ask[RootState](ctx, c, call{route: RouteRootLock})
}

// SlotList lists the ways to open the root key.
func (c *Client) SlotList(ctx context.Context) ([]Slot, error) {
	return ask[[]Slot](ctx, c, call{route: RouteSlotList})
}

// SlotAdd makes a slot that a passphrase opens, which is wiped when it returns.
func (c *Client) SlotAdd(ctx context.Context, name string, passphrase []byte) (Slot, error) {
	return askWith[Slot](ctx, c, call{route: RouteSlotAdd, query: url.Values{QueryName: {name}}}, passphrase)
}

// SlotRemove removes a slot and returns what it was; yes confirms it.
func (c *Client) SlotRemove(ctx context.Context, slot string, yes bool) (Slot, error) {
	return ask[Slot](ctx, c, call{route: RouteSlotRemove, name: slot, query: flags(QueryYes, yes)})
}
