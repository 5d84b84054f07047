//go:build integration

package integration

import (
	"os"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestRuleC8_TokenSlotOpensAtStart: an AES key and a key pair on a token each open the store without the key file; one that hangs keeps the
// start waiting for less than 5 s.
func TestRuleC8_TokenSlotOpensAtStart(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	b := newBox(t, d)
	pair := d.dir + "/pair.pem"
	tool(t, "openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", pair)
	b.util(d, "--import", pair, "--token", "box", "--label", "pair", "--id", "01", "--pin", rightPIN)
	d.start()
	d.do("grant", "create")
	d.create("vol", "16M", "--encrypted")
	write(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 0)
	if e := d.refused(10, addToken("pair", b.uri("nothing"))...); !strings.Contains(e.Message, "no key of that name") {
		t.Errorf("%+v", e)
	}
	slot := get[control.Slot](d, addToken("pair", b.uri("pair"))...)
	if slot.Kind != "pkcs11" || !slot.Automatic || !strings.Contains(slot.Detail, "rsa-oaep") {
		t.Errorf("the slot: %+v", slot)
	}
	check(t, os.WriteFile(d.dir+"/passphrase", []byte(rightPassphrase), 0o600))
	d.do("root", "slot", "add", "passphrase", "--passphrase-file", d.dir+"/passphrase")
	d.stop()
	check(t, os.Rename(d.root, d.root+".away"))
	d.start()
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 0)
	d.stop()

	back := b.away()
	d.start()
	if s := d.status(); !s.Locked || !strings.Contains(d.said(), "no such token") {
		t.Errorf("without the token: %+v", s)
	}
	back()
	if out := d.do("root", "unlock"); !strings.Contains(out, "by slot pair") {
		t.Errorf("unlock: %s", out)
	}
	d.stop()

	b.hang()
	soon(t, "the start", d.start)
	d.do("root", "unlock", "--passphrase-file", d.dir+"/passphrase")
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 0)
	d.stop()
	check(t, os.Rename(d.root+".away", d.root))
	soon(t, "the start with the key file", d.start)
	d.attach("vol")
}

// addToken is how a slot by a token is added.
func addToken(name, uri string) []string {
	return []string{"root", "slot", "add", "pkcs11", "--name", name, "--token", uri}
}
