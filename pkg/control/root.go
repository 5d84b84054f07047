package control

import (
	"context"
	"net/url"
	"time"
)

// QueryName names what a call makes, where the call can't have a body; QueryCredential what systemd calls a credential.
const (
	QueryName       = "name"
	QueryCredential = "credential"
)

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
	SlotTPM        = "tpm2"
	SlotCredential = "credential"
	SlotRecovery   = "recovery"
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

// SlotTPMAdd asks for a slot that a TPM opens; what is empty is as usual.
type SlotTPMAdd struct {
	Name   string `json:"name"`
	PCRs   string `json:"pcrs"`
	Device string `json:"device"`
}

// SlotSeal asks to seal a TPM's slot anew; what is empty stays as it was.
type SlotSeal struct {
	PCRs   string `json:"pcrs"`
	Device string `json:"device"`
}

// SlotCredentialAdd asks for a slot that a credential of systemd opens, and for the credential.
type SlotCredentialAdd struct {
	Name       string `json:"name"`
	Credential string `json:"credential"`
}

// Credential is what `root slot add credential` prints: the secret is told this once.
type Credential struct {
	Slot       Slot   `json:"slot"`
	Credential string `json:"credential"`
	// Secret is empty where the caller gave it.
	Secret string `json:"secret"`
}

// RecoveryCreate asks for a recovery kit: Shares sheets, any Threshold of which open the root key.
type RecoveryCreate struct {
	Name      string `json:"name"`
	Shares    int    `json:"shares"`
	Threshold int    `json:"threshold"`
}

// RecoveryKit is what `root recovery create` prints: it is told this once.
type RecoveryKit struct {
	Store     string          `json:"store"`
	Slot      Slot            `json:"slot"`
	Shares    int             `json:"shares"`
	Threshold int             `json:"threshold"`
	Sheets    []RecoverySheet `json:"sheets"`
}

// RecoverySheet is one share of a kit as pkg/kit writes it.
type RecoverySheet struct {
	Share int      `json:"share"`
	Lines []string `json:"lines"`
}

// SlotKeyFile makes the root key file anew.
func (c *Client) SlotKeyFile(ctx context.Context) (Slot, error) {
	return ask[Slot](ctx, c, call{route: RouteSlotKeyFile})
}

// SlotTPM makes a slot that a TPM opens.
func (c *Client) SlotTPM(ctx context.Context, slot SlotTPMAdd) (Slot, error) {
	return ask[Slot](ctx, c, call{route: RouteSlotTPM, body: slot})
}

// SlotCredential makes a slot that a credential opens, and the credential.
func (c *Client) SlotCredential(ctx context.Context, slot SlotCredentialAdd) (Credential, error) {
	return ask[Credential](ctx, c, call{route: RouteSlotCredential, body: slot})
}

// SlotGive makes a slot that a credential opens which the caller gives, and wipes it.
func (c *Client) SlotGive(ctx context.Context, slot SlotCredentialAdd, secret []byte) (Credential, error) {
	return askWith[Credential](ctx, c, call{route: RouteSlotGive, query: url.Values{QueryName: {slot.Name}, QueryCredential: {slot.Credential}}}, secret)
}

// SlotReseal seals a TPM's slot to what its registers are now.
func (c *Client) SlotReseal(ctx context.Context, slot string, how SlotSeal) (Slot, error) {
	return ask[Slot](ctx, c, call{route: RouteSlotReseal, name: slot, body: how})
}

// RecoveryCreate makes a slot that a recovery kit opens, and the kit.
func (c *Client) RecoveryCreate(ctx context.Context, kit RecoveryCreate) (RecoveryKit, error) {
	return ask[RecoveryKit](ctx, c, call{route: RouteRecoveryCreate, body: kit})
}

// RecoveryOpen opens the root key by shares of a kit, which are wiped when it returns.
func (c *Client) RecoveryOpen(ctx context.Context, shares []byte) (RootState, error) {
	return askWith[RootState](ctx, c, call{route: RouteRecoveryOpen}, shares)
}

// RecoveryVerify tells which slot shares of a kit would open; they are wiped when it returns.
func (c *Client) RecoveryVerify(ctx context.Context, shares []byte) (Slot, error) {
	return askWith[Slot](ctx, c, call{route: RouteRecoveryVerify}, shares)
}
