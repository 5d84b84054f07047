package keystore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/secret"
)

// The slots of other kinds of the store of the artefacts: each file has what opens it beside it.
const (
	slotRecovery   = "slot.recovery"
	slotCredential = "slot.credential"
	kitSheets      = "recovery.sheets"
	credentialText = "credential"
)

// onlySlot is a state directory of artefacts without a root key file and with one slot.
func onlySlot(t *testing.T, name string) (dir, keyFile string) {
	t.Helper()
	dir, keyFile = state(t)
	must(t, os.Remove(keyFile))
	must(t, os.RemoveAll(filepath.Join(dir, keystore.SlotsDir)))
	mkdir(t, filepath.Join(dir, keystore.SlotsDir))
	file := artefact(t, name, nil)
	_, id, _ := strings.Cut(string(file), "\nslot ")
	writeFile(t, filepath.Join(dir, keystore.SlotsDir, id[:36]), file)
	return dir, keyFile
}

// What version 1 wrote of a recovery slot opens with three of the five sheets that were printed then.
func TestRecoveryArtefactOpens(t *testing.T) {
	if _, err := os.Stat(filepath.Join(artefacts, slotRecovery)); err != nil && *update {
		writeOtherSlots(t)
	}
	dir, keyFile := onlySlot(t, slotRecovery)
	shares := make([]byte, kit.MaxShares*kit.ShareSize)
	count, err := kit.ReadSheets(shares, artefact(t, kitSheets, nil), 1)
	if err != nil || count != 5 {
		t.Fatal(count, err)
	}
	root, err := keystore.OpenRoot(keyFile, dir)
	must(t, err)
	defer root.Close()
	given := passphrase(t, string(shares[2*kit.ShareSize:5*kit.ShareSize]))
	if slot, err := root.UnlockRecovery(t.Context(), given); err != nil || slot.Name != "recovery" || root.Locked() {
		t.Errorf("%+v, %v", slot, err)
	}
}

// What version 1 wrote of a credential slot opens with its credential.
func TestCredentialArtefactOpens(t *testing.T) {
	dir, keyFile := onlySlot(t, slotCredential)
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	writeFile(t, filepath.Join(credentials, keystore.Credential), artefact(t, credentialText, nil))
	root, err := keystore.OpenRoot(keyFile, dir)
	must(t, err)
	defer root.Close()
	if root.Locked() {
		t.Errorf("it does not open: %v", root.Failed)
	}
}

// writeOtherSlots adds slots to the store of the artefacts.
func writeOtherSlots(t *testing.T) {
	dir, keyFile := state(t)
	must(t, os.RemoveAll(filepath.Join(dir, keystore.SlotsDir)))
	root, err := keystore.OpenRoot(keyFile, dir)
	must(t, err)
	defer root.Close()
	recovery, shares, err := root.AddRecovery(t.Context(), "recovery", 5, 3)
	must(t, err)
	defer shares.Destroy()
	credential, made, err := root.AddCredential(t.Context(), "credential", keystore.Credential, nil)
	must(t, err)
	defer made.Destroy()
	file := func(s keystore.SlotInfo) []byte { return readFile(t, filepath.Join(dir, keystore.SlotsDir, s.ID)) }
	keep(t, map[string][]byte{slotRecovery: file(recovery), slotCredential: file(credential), kitSheets: sheetsOf(shares),
		credentialText: append(append([]byte{}, made.Bytes()...), '\n')})
}

func sheetsOf(shares *secret.Key) (text []byte) {
	for at := 0; at < shares.Len(); at += kit.ShareSize {
		for n := 1; n <= kit.Lines; n++ {
			line := make([]byte, kit.LineSize)
			kit.WriteLine(line, shares.Bytes()[at:][:kit.ShareSize], n)
			text = append(append(append(text, "line "...), byte('0'+n), ' '), append(line, '\n')...)
		}
	}
	return text
}
