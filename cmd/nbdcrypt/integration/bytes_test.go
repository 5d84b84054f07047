//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"testing"

	"nbdcrypt/nbd/nbdclient"
)

// noise is n bytes that look random and are the same for the same name.
func noise(name string, n int) []byte {
	b := make([]byte, n)
	// Read of ChaCha8 never fails.
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(b)
	return b
}

// dial connects our client until the test ends.
func dial(t *testing.T, uri string) *nbdclient.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, uri)
	check(t, err)
	t.Cleanup(func() { _ = c.Disconnect() }) // the daemon may be gone by then
	return c
}

func write(t *testing.T, c *nbdclient.Client, data []byte, at int64) {
	t.Helper()
	_, err := c.WriteAt(data, at)
	check(t, err)
}

func read(t *testing.T, c *nbdclient.Client, at int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := c.ReadAt(b, at)
	check(t, err)
	return b
}

// expect reads, and fails where anything else than want is read.
func expect(t *testing.T, c *nbdclient.Client, want []byte, at int64) {
	t.Helper()
	if got := read(t, c, at, len(want)); !bytes.Equal(got, want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Fatalf("%d bytes at %d: the one at %d is %#x, not %#x", len(want), at, at+int64(i), got[i], want[i])
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	check(t, os.WriteFile(path, data, 0o600))
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}
