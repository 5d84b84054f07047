//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
	"nbdcrypt/pkg/kit"
)

// keytest builds, once, the program that hands every key out as it destroys it.
var keytest = sync.OnceValues(func() (string, error) {
	path := program + "-keytest"
	return path, build(path, "-tags=keytest")
})

// planted is what stands in the daemon's environment: whoever can't find that has not searched.
var planted = noise("planted", 32)

// keytestDaemon lays out a daemon of that build.
func keytestDaemon(t *testing.T, env ...string) *daemon {
	t.Helper()
	d := newDaemon(t)
	var err error
	d.program, err = keytest()
	check(t, err)
	d.env = append(env, "NBDCRYPT_KEYTEST="+d.handedOut(), fmt.Sprintf("PLANTED=%x", planted))
	return d
}

func (d *daemon) handedOut() string { return d.dir + "/keys" }

// A handed is a key that was destroyed.
type handed struct {
	kind, id, why string
	bytes         []byte
}

// keys reads what was handed out so far.
func (d *daemon) keys() (list []handed) {
	d.t.Helper()
	rest := readFile(d.t, d.handedOut())
	for len(rest) > 0 {
		var k handed
		var n int
		head, after, ok := bytes.Cut(rest, []byte("\n"))
		if _, err := fmt.Sscanf(string(head), "%q %q %q %d", &k.kind, &k.id, &k.why, &n); !ok || err != nil || n > len(after) {
			d.t.Fatalf("a record of a key that is none: %q, %v", head, err)
		}
		k.bytes, rest = after[:n], after[n:]
		list = append(list, k)
	}
	return list
}

// collect has the daemon collect garbage, and waits for it.
func (d *daemon) collect() {
	d.t.Helper()
	collections := func() (n int) {
		for _, k := range d.keys() {
			if k.kind == "collected" {
				n++
			}
		}
		return n
	}
	before := collections()
	check(d.t, syscall.Kill(d.pid(), syscall.SIGUSR2))
	waitFor(d.t, "no garbage is collected", func() bool { return collections() > before })
}

// scanner looks for keys that were handed out, and for what was made of them: schedules, wrapping keys, states of hashes. There
// must be keys of these kinds.
func (d *daemon) scanner(keys []handed, kinds ...string) *keyscan.Scanner {
	d.t.Helper()
	s := keyscan.New()
	had := map[string]int{}
	for i, k := range keys {
		had[k.kind]++
		k.addTo(s, strings.TrimSpace(fmt.Sprintf("%s %s (%s, record %d)", k.kind, k.id, k.why, i)))
	}
	for _, kind := range kinds {
		if had[kind] == 0 {
			d.t.Fatalf("no key of the kind %s was handed out: %v", kind, had)
		}
	}
	s.Public(d.rootID())
	for _, b := range d.public {
		s.Public(b)
	}
	d.t.Logf("keys handed out: %v; %d patterns", had, s.Size())
	return s
}

// gone looks for the first n keys that were handed out, except as far as they are those that stay until the daemon ends.
func (d *daemon) gone(keys []handed, n int) *keyscan.Scanner {
	d.t.Helper()
	s := d.scanner(keys[:n], "cmk", "dek", "derived")
	for _, k := range keys {
		if k.kind == "root" || k.kind == "catalog" || k.kind == "attest" {
			s.Public(k.bytes)
		}
	}
	return s
}

// hashState is how large the state of keystore's hashes is. At its end are the two values that derivations make.
const hashState = 528

// rsaPrivate is how large the private key of an RSA key pair is: two primes of 2048 bits.
const rsaPrivate = 512

func (k handed) addTo(s *keyscan.Scanner, name string) {
	switch {
	case k.kind == "attest" && strings.HasPrefix(k.why, "reading"):
		// What the daemon itself has searched is other memory of its own.
	case k.kind == "derived" && len(k.bytes) == hashState && bytes.Equal(k.bytes[hashState-64:][:32], make([]byte, 32)):
		// A hash of something, not a derivation of a key: that of a file, whose bytes are no secret.
	case k.kind == "child" && strings.HasPrefix(k.why, "sealing"):
		// What a TPM gives for a secret is written into the slot's file.
	case k.kind == "erase" && len(k.bytes) == 8192: // slots of the erase file: a mark, the CMK's id, the key
		s.Key(name, k.bytes[20:52])
	case strings.HasPrefix(k.why, "importing") && len(k.bytes) > rsaPrivate: // a key pair, of which the public key comes last
		s.Material(name, k.bytes[:rsaPrivate])
	case k.paper():
		for line := range slices.Chunk(k.bytes, kit.LineSize) {
			s.Key(name, line)
		}
	case k.kind == "passphrase" || len(k.bytes) == 32 || len(k.bytes) == 64:
		s.Key(name, k.bytes)
	default:
		s.Material(name, k.bytes)
	}
}

// paper tells that it is the lines of a recovery kit, as letters.
func (k handed) paper() bool {
	return k.kind == "recovery" && strings.HasSuffix(k.why, "on its way out")
}

// rootID reads what is derived from the root key and told to everybody.
func (d *daemon) rootID() []byte {
	d.t.Helper()
	_, rest, ok := strings.Cut(string(readFile(d.t, d.state+"/store")), "\nroot ")
	digits, _, _ := strings.Cut(rest, "\n")
	var id []byte
	_, err := fmt.Sscanf(digits, "%x", &id)
	if !ok || err != nil || len(id) != 16 {
		d.t.Fatalf("no id of the root key in %s: %v", d.state+"/store", err)
	}
	return id
}
