package volume

import (
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
	"nbdcrypt/xts"
)

// heldCipher is a layer's cipher with the memory that its schedules lie in.
type heldCipher struct {
	layer  uuid.UUID
	cipher *xts.Cipher
	memory *secret.Key
}

// wipe leaves nothing of the key.
func (h heldCipher) wipe() {
	h.cipher.Wipe()
	h.memory.Destroy()
}

// ciphers are those of all open layers. What many stacks have in common has one, which is wiped when the last of them lets go of it.
type ciphers struct {
	mu    sync.Mutex
	held  map[uuid.UUID]heldCipher
	users map[uuid.UUID]int
}

func newCiphers() *ciphers {
	return &ciphers{held: map[uuid.UUID]heldCipher{}, users: map[uuid.UUID]int{}}
}

// hold gives the cipher of a layer to one more user. Where somebody holds it already own is wiped, and has to be the same: a record that
// opens to another key is told while there are others.
func (c *ciphers) hold(own heldCipher) (h heldCipher, same bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, held := c.held[own.layer]
	if !held {
		c.held[own.layer], c.users[own.layer] = own, 1
		return own, true
	}
	secret.Do(func() { same = h.memory.Equal(own.memory) })
	own.wipe()
	if same {
		c.users[own.layer]++
	}
	return h, same
}

// share gives a cipher that somebody holds to one more user.
func (c *ciphers) share(h heldCipher) heldCipher {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[h.layer]++
	return h
}

// letGo answers those ciphers that nobody uses any more: the caller wipes them.
func (c *ciphers) letGo(of []heldCipher) (last []heldCipher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range of {
		if c.users[h.layer]--; c.users[h.layer] == 0 {
			delete(c.users, h.layer)
			delete(c.held, h.layer)
			last = append(last, h)
		}
	}
	return last
}
