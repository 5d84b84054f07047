package keystore_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

func (l *lab) kit(name string, count, threshold int) (keystore.SlotInfo, *secret.Key) {
	l.t.Helper()
	info, shares, err := l.root.AddRecovery(l.ctx(), name, count, threshold)
	must(l.t, err)
	l.t.Cleanup(shares.Destroy)
	return info, shares
}

// some are some of the shares of a kit, by number.
func some(t *testing.T, from *secret.Key, numbers ...int) *secret.Key {
	t.Helper()
	k, err := secret.Work(max(1, len(numbers)*kit.ShareSize), secret.Purpose{Kind: "test"})
	must(t, err)
	t.Cleanup(k.Destroy)
	for i, n := range numbers {
		copy(k.Bytes()[i*kit.ShareSize:], from.Bytes()[(n-1)*kit.ShareSize:][:kit.ShareSize])
	}
	return k
}

func joined(t *testing.T, keys ...*secret.Key) *secret.Key {
	t.Helper()
	var all []byte
	for _, k := range keys {
		all = append(all, k.Bytes()...)
	}
	return passphrase(t, string(all))
}

// A kit opens the store alone, at another place, and the store gets a key file again.
func TestRuleC9_KitOpensACopyElsewhere(t *testing.T) {
	for _, c := range [][2]int{{1, 1}, {5, 3}} {
		l := newLab(t)
		info, shares := l.kit("recovery", c[0], c[1])
		if len(shares.Bytes()) != c[0]*kit.ShareSize || info.Automatic || !info.Present {
			t.Fatalf("%+v with %d bytes", info, shares.Len())
		}
		l.close()
		must(t, os.Remove(l.keyFile))
		elsewhere := filepath.Join(t.TempDir(), "state")
		must(t, os.CopyFS(elsewhere, os.DirFS(l.dir)))
		file := filepath.Join(t.TempDir(), "etc", "root.key")
		root, err := keystore.OpenRoot(file, elsewhere)
		must(t, err)
		defer root.Close()
		if !root.Locked() {
			t.Fatal("it opens by itself")
		}
		numbers := []int{1, 5, 3}[:c[1]]
		verified, err := root.VerifyRecovery(t.Context(), some(t, shares, numbers...))
		if err != nil || verified != info || !root.Locked() {
			t.Errorf("verified by %+v, %v", verified, err)
		}
		opened, err := root.UnlockRecovery(t.Context(), some(t, shares, numbers...))
		if err != nil || opened != info || root.Locked() {
			t.Fatalf("opened by %+v, %v", opened, err)
		}
		made, err := root.AddKeyFile()
		if err != nil || made.Kind != keystore.KeyFileSlot || !made.Present || made.Detail != file {
			t.Fatalf("%+v, %v", made, err)
		}
		_, err = root.AddKeyFile()
		wantCode(t, err, refusal.Busy)
		must(t, root.Lock())
		if slot, err := root.UnlockAutomatic(t.Context()); err != nil || slot != keystore.KeyFileSlot {
			t.Errorf("opened by %s, %v", slot, err)
		}
	}
}

// Each mistake with a kit has its own refusal, and none of them opens anything.
func TestRecoveryRefusals(t *testing.T) {
	l, stranger := newLab(t), newLab(t)
	_, shares := l.kit("recovery", 5, 3)
	_, second := l.kit("second", 5, 3)
	_, theirs := stranger.kit("recovery", 5, 3)
	_, single := l.kit("single", 1, 1)
	gone, removed := l.kit("gone", 2, 2)
	must(t, l.root.RemoveSlot(l.ctx(), gone.ID))
	altered := some(t, shares, 1, 2, 3)
	altered.Bytes()[kit.ShareSize+20] ^= 1
	bent := some(t, shares, 1, 2, 3)
	bent.Bytes()[kit.ShareSize+6] = 2
	version := some(t, shares, 1, 2, 3)
	version.Bytes()[0] = 2
	wrongSingle := some(t, single, 1)
	wrongSingle.Bytes()[39] ^= 0x80
	must(t, l.root.Lock())
	for what, c := range map[string]struct {
		given *secret.Key
		code  refusal.Code
		words string
	}{
		"too few":           {some(t, shares, 4, 2), refusal.Usage, "opens with 3 shares, and 2 were given"},
		"one twice":         {some(t, shares, 4, 2, 4), refusal.Usage, "share 4 was given twice"},
		"of two kits":       {joined(t, some(t, shares, 1, 2), some(t, second, 3)), refusal.Usage, "of another recovery kit"},
		"of another store":  {some(t, theirs, 1, 2, 3), refusal.Locked, "no slot of store " + l.root.Store.String()},
		"of a removed slot": {some(t, removed, 1, 2), refusal.Locked, "its slot was removed"},
		"altered":           {altered, refusal.Locked, "does not open slot recovery"},
		"altered, whole":    {wrongSingle, refusal.Locked, "does not open slot single"},
		"other threshold":   {bent, refusal.Usage, "share 2"},
		"later version":     {version, refusal.Usage, "version 2"},
		"cut":               {passphrase(t, string(shares.Bytes()[:50])), refusal.Usage, "50 bytes are not shares"},
	} {
		_, err := l.root.UnlockRecovery(l.ctx(), c.given)
		if refused := wantCode(t, err, c.code); !strings.Contains(refused.Message, c.words) || !l.root.Locked() {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := l.root.VerifyRecovery(l.ctx(), c.given); refusal.CodeOf(err) != c.code {
			t.Errorf("%s, verified: %v", what, err)
		}
	}
	if opened, err := l.root.UnlockRecovery(l.ctx(), some(t, shares, 1, 2, 3, 5)); err != nil || opened.Name != "recovery" {
		t.Errorf("with more than are needed: %+v, %v", opened, err)
	}
}

func TestKitsThatAreNotMade(t *testing.T) {
	l := newLab(t)
	for _, c := range [][2]int{{0, 0}, {1, 2}, {3, 1}, {3, 4}, {17, 2}} {
		_, _, err := l.root.AddRecovery(l.ctx(), "recovery", c[0], c[1])
		wantCode(t, err, refusal.Usage)
	}
	l.kit("recovery", 1, 1)
	_, shares, err := l.root.AddRecovery(l.ctx(), "recovery", 1, 1)
	if wantCode(t, err, refusal.Busy); shares != nil {
		t.Error("there are shares of a slot that was not made")
	}
	must(t, l.root.Lock())
	_, _, err = l.root.AddRecovery(l.ctx(), "other", 1, 1)
	wantCode(t, err, refusal.Locked)
}

// Nothing of a kit stays behind: neither in the files, nor in key memory.
func TestRuleA5_KitIsKeptNowhere(t *testing.T) {
	l := newLab(t)
	_, shares := l.kit("recovery", 3, 2)
	needles := [][]byte{}
	for share := range slices.Chunk(shares.Bytes(), kit.ShareSize) {
		needles = append(needles, share[8:24], share[24:])
	}
	if found := contains(t, l.dir, needles...); len(found) > 0 {
		t.Errorf("%v holds a share", found)
	}
	shares.Destroy()
	if n := held("recovery", "") + held("derived", ""); n != 0 || secret.Unwiped() != 0 {
		t.Errorf("there are in memory %v", secret.List())
	}
}

// A credential of systemd opens the store at its start: one that was made here, and one that was given.
func TestRuleC8_CredentialOpensTheStore(t *testing.T) {
	l := newLab(t)
	must(t, os.Unsetenv("CREDENTIALS_DIRECTORY"))
	info, made, err := l.root.AddCredential(l.ctx(), "systemd", keystore.Credential, nil)
	must(t, err)
	if info.Present || !info.Automatic || !strings.Contains(info.Detail, "CREDENTIALS_DIRECTORY") {
		t.Errorf("without credentials it is %+v", info)
	}
	given := strings.Repeat("x", 32)
	_, none, err := l.root.AddCredential(l.ctx(), "mine", "mine", passphrase(t, given))
	if err != nil || none != nil {
		t.Fatal(none, err)
	}
	for _, c := range []struct{ name, secret string }{{"a/b", given}, {"", given}, {"..", given}, {"ok", given[1:]}, {"ok", strings.Repeat("x", 1025)}} {
		_, _, err := l.root.AddCredential(l.ctx(), "bad", c.name, passphrase(t, c.secret))
		wantCode(t, err, refusal.Usage)
	}
	text := string(made.Bytes())
	made.Destroy()
	if len(text) != 64 || strings.Trim(text, "0123456789abcdef") != "" {
		t.Errorf("it made %d bytes", len(text))
	}
	if found := contains(t, l.dir, []byte(text), []byte(given)); len(found) > 0 {
		t.Errorf("%v holds it", found)
	}
	l.close()
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))

	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	root := l.atStart()
	if !root.Locked() || len(root.Failed) != 2 {
		t.Fatalf("without the credential: %v", root.Failed)
	}
	wantWords(t, refusal.From(root.Reopens()), "no such file", "slot add passphrase")
	for name, text := range map[string]string{keystore.Credential: text, "mine": given + "\n"} {
		writeFile(t, filepath.Join(dir, name), []byte(strings.Repeat("y", 64)))
		if _, err := root.UnlockAutomatic(t.Context()); err == nil || !strings.Contains(err.Error(), "does not open") {
			t.Fatalf("another credential: %v", err)
		}
		writeFile(t, filepath.Join(dir, name), []byte(text))
		if _, err := root.UnlockAutomatic(t.Context()); err != nil || root.Locked() {
			t.Errorf("%s does not open it: %v", name, err)
		}
		must(t, root.Reopens())
		must(t, root.Lock())
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	writeFile(t, filepath.Join(dir, "mine"), []byte(given))
	again := l.atStart()
	if again.Locked() {
		t.Errorf("it does not open at the start: %v", again.Failed)
	}
}
