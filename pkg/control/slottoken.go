package control

import "context"

// The kinds of slots by a PKCS#11 token: one that releases the root key, and the only one of a store that a token holds.
const (
	SlotPKCS11 = "pkcs11"
	SlotToken  = "token"
)

// SlotTokenAdd asks for a slot that a key on a token opens; Token is its URI.
type SlotTokenAdd struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

// SlotToken makes a slot that a key on a token opens.
func (c *Client) SlotToken(ctx context.Context, slot SlotTokenAdd) (Slot, error) {
	return ask[Slot](ctx, c, call{route: RouteSlotToken, body: slot})
}
