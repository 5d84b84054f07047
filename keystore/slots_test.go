package keystore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	horse  = "correct horse battery staple"
	office = "another passphrase"
)

func passphrase(t *testing.T, s string) *secret.Key {
	t.Helper()
	k, err := secret.Work(max(1, len(s)), secret.Purpose{Kind: "test"})
	must(t, err)
	copy(k.Bytes(), s)
	t.Cleanup(k.Destroy)
	return k
}

func (l *lab) addSlot(name, pass string) keystore.SlotInfo {
	l.t.Helper()
	s, err := l.root.AddPassphrase(l.ctx(), name, passphrase(l.t, pass))
	must(l.t, err)
	return s
}

func (l *lab) slots() []keystore.SlotInfo {
	l.t.Helper()
	s, err := l.root.Slots()
	must(l.t, err)
	return s
}

func (l *lab) slotFile(s keystore.SlotInfo) string {
	return filepath.Join(l.dir, keystore.SlotsDir, s.ID)
}

// atStart opens the root key alone, and closes it at the end of the test.
func (l *lab) atStart() *keystore.Root {
	l.t.Helper()
	r, err := keystore.OpenRoot(l.keyFile, l.dir)
	must(l.t, err)
	l.t.Cleanup(r.Close)
	return r
}

// A passphrase opens a store whose key file is away, and nothing else does.
func TestPassphraseOpensTheStore(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	laptop := l.addSlot("laptop", horse)
	l.addSlot("office", office)
	l.close()
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))

	root := l.atStart()
	if !root.Locked() || root.First || root.Made {
		t.Fatalf("without its key file the root key is %+v", root)
	}
	wantWords(t, wantCode(t, root.UnlockFile(), refusal.Locked), l.keyFile)
	for _, wrong := range []string{horse + "\n", strings.ToUpper(horse), "short", strings.Repeat("x", 1025)} {
		_, err := root.UnlockPassphrase(t.Context(), passphrase(t, wrong))
		wantWords(t, wantCode(t, err, refusal.Locked), "the passphrase opens no slot")
		if !root.Locked() {
			t.Fatalf("%.40q opens it", wrong)
		}
	}
	opened, err := root.UnlockPassphrase(t.Context(), passphrase(t, horse))
	if err != nil || opened != laptop || root.Locked() {
		t.Fatalf("opened by %+v, %v, want %+v", opened, err, laptop)
	}
	again, err := root.UnlockPassphrase(t.Context(), passphrase(t, office))
	if err != nil || again.Name != "office" {
		t.Errorf("open already: %+v, %v", again, err)
	}
	root.Close()
	l.pass = horse
	l.open()
	after, err := l.unwrap("default", disk1, "l1")
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the DEK opens to something else: %v", err)
	}
}
