//go:build integration

package integration

import (
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
)

// holdsKeys in the environment makes this binary the control's victim.
const holdsKeys = "NBDCRYPT_TEST_HOLDS_KEYS"

// victimKeys are what it holds: a key of Go's own AES, and one of the XTS that is made of it.
func victimKeys() (plain, double []byte) { return noise("victim", 32), noise("second victim", 64) }

// hold does what a program does that knows nothing of key memory, until its stdin ends.
func hold() {
	plain, double := victimKeys()
	block, err := aes.NewCipher(plain)
	if err != nil {
		panic(err)
	}
	cipher, err := xts.NewCipher(aes.NewCipher, double)
	if err != nil {
		panic(err)
	}
	clear(plain)
	clear(double)
	fmt.Println("holding")
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(block)
	runtime.KeepAlive(cipher)
}

// startVictim returns the process id of one that holds keys.
func startVictim(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holdsKeys+"=1")
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		check(t, cmd.Wait())
	})
	said := make([]byte, len("holding"))
	_, err = io.ReadFull(stdout, said)
	check(t, err)
	return cmd.Process.Pid
}

// TestRuleA13_ControlIsFound: what finds nothing in the daemon finds the keys of Go's own cipher, each way of looking by itself.
func TestRuleA13_ControlIsFound(t *testing.T) {
	t.Parallel()
	plain, double := victimKeys()
	scanner := keyscan.New()
	scanner.Key("plain", plain)
	scanner.Key("double", double)
	pid := startVictim(t)
	found := func(s *snapshot) {
		t.Helper()
		keys := newHaystack().aeskeyfind(t, s)
		for _, key := range [][]byte{plain, double[:32], double[32:]} {
			if !strings.Contains(keys, hex.EncodeToString(key)) {
				t.Errorf("aeskeyfind does not print %x:\n%s", key, keys)
			}
		}
	}
	for _, s := range []*snapshot{memory(t, pid), core(t, pid, false)} {
		found(s)
		forms := map[string]bool{}
		for _, l := range s.leaks(scanner) {
			if !l.Half() {
				forms[l.Secret+": "+l.Form] = true
			}
		}
		for _, secret := range []string{"plain", "double, data key", "double, tweak key"} {
			for r := 1; r < 14; r++ {
				for _, direction := range []string{"encryption", "decryption"} {
					if want := fmt.Sprintf("%s: %s round key %d", secret, direction, r); !forms[want] {
						t.Errorf("%s: not found: %s", s.name, want)
					}
				}
			}
		}
	}
}
