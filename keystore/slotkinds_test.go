package keystore

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/uuid"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/secret"
)

func someTPM(device string) tpmWay {
	t, err := parsePCRs("sha256:0,7")
	if err != nil {
		panic(err)
	}
	t.Device = device
	object := tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256}
	return tpmWay{t, child.Sealed{Parent: 0x81000001, SRK: tpm2.Marshal(tpm2.ECCSRKTemplate), Public: tpm2.Marshal(object), Private: []byte{3}}}
}

// oneOfEach is a slot of each kind that is not a passphrase's.
func oneOfEach(t testing.TB) []slot {
	t.Helper()
	var all []slot
	for kind, w := range map[string]way{
		kindTPM: someTPM("/dev/tpmrm0"), kindCredential: credentialWay{"nbdcrypt.root"}, kindRecovery: recoveryWay{5, 3},
		kindPKCS11: somePKCS11(),
	} {
		s, _ := someSlot(t)
		s.kind, s.way = kind, w
		all = append(all, s)
	}
	return all
}

// Each kind's lines have one spelling.
func TestSlotKindsGrammar(t *testing.T) {
	for _, s := range oneOfEach(t) {
		b := encoded(t, s)
		got, err := parseSlotFile(b)
		if err != nil || !bytes.Equal(encoded(t, got), b) || got.kind != s.kind || got.way.detail() == "" {
			t.Errorf("%s: %+v, %v", s.kind, got, err)
		}
	}
	for kind, changes := range map[string][][2]string{
		kindTPM: {{"sha256:0,7", "sha256:7,0"}, {"sha256:0,7", "sha256:0,7,7"}, {"sha256:0,7", "sha256:0,07"}, {"sha256:0,7", "sha256:24"}, {"sha256:0,7", "sha1:7"},
			{"sha256:0,7", "sha256:"}, {"sha256:0,7", ""}, {"/dev/tpmrm0", "dev/tpmrm0"}, {"/dev/tpmrm0", "/dev/../tpmrm0"}, {"/dev/tpmrm0", ""},
			{"parent 81000001", "parent 081000001"}, {"parent 81000001", "parent 00000000"}, {"parent 81000001", "parent x"}, {"srk 0023", "srk 023"}, {"srk 0023", "srk 002G"},
			{"private 03", "private " + strings.Repeat("00", maxSealed+1)}, {"\nprivate ", "\nprivat "}},
		kindCredential: {{"credential nbdcrypt.root", "credential ../root"}, {"credential nbdcrypt.root", "credential "}, {"credential nbdcrypt.root", "credential .root"}},
		kindPKCS11: {{"token pkcs11:token=box", "token pkcs11:token=b%6Fx"}, {"token pkcs11:", "token "}, {"pin-source=file:", "pin-source="}, {"?module-path=/m.so", ""},
			{"mechanism aes-gcm", "mechanism aes"}, {"mechanism aes-gcm", "mechanism mechanism 0"}, {"sealed 0a", "sealed 0A"}, {"sealed 0a", "sealed a"},
			{"sealed 0a", "sealed " + strings.Repeat("00", maxSealedSecret)}, {"mechanism aes-gcm\n", ""}},
		kindRecovery: {{"shares 5 3", "shares 5"}, {"shares 5 3", "shares 05 3"}, {"shares 5 3", "shares 3 5"}, {"shares 5 3", "shares 5 1"}, {"shares 5 3", "shares 17 3"}, {"shares 5 3", "shares 5 3 1"}},
	} {
		all := oneOfEach(t)
		whole := string(encoded(t, all[slices.IndexFunc(all, func(s slot) bool { return s.kind == kind })]))
		for _, c := range changes {
			if !strings.Contains(whole, c[0]) {
				t.Fatalf("%q is not there", c[0])
			}
			if _, err := parseSlotFile(resum(t, []byte(strings.Replace(whole, c[0], c[1], 1)))); err == nil {
				t.Errorf("%s: %q is read", kind, c[1])
			}
		}
	}
}

func FuzzSlotKinds(f *testing.F) {
	for _, s := range oneOfEach(f) {
		b := encoded(f, s)
		if _, err := parseSlotFile(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resum(t, append(bytes.Clone(b), make([]byte, len("sum ")+sumDigits+1)...))} {
			s, err := parseSlotFile(b)
			if err != nil {
				continue
			}
			if again := encoded(t, s); !bytes.Equal(again, b) || s.way.check() != nil || s.way.detail() == "" {
				t.Errorf("%q is taken as %+v", b, s)
			}
		}
	})
}

// forge writes a slot that opens the root key by a secret, whatever its way says.
func (r *Root) forge(t *testing.T, kind, name string, w way, given string) {
	t.Helper()
	s := slot{store: r.Store, id: uuid.New(), kind: kind, name: name, created: time.Unix(1e9, 0).UTC(), way: w}
	key, err := secret.Work(len(given), secret.Purpose{})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	copy(key.Bytes(), given)
	if err := r.wrapRoot(&s, key); err != nil {
		t.Fatal(err)
	}
	if err := r.prepareSlots(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.slotPath(s.id), encoded(t, s), 0o600); err != nil {
		t.Fatal(err)
	}
}

// deadTPM is a socket that takes every connection and never answers.
func deadTPM(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbdc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "tpm")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		var held []net.Conn // one that is forgotten closes itself
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			held = append(held, conn)
		}
	}()
	return path
}

// A TPM that never answers, and one that is gone, hold the start up for less than 5 s; what opens is not held up by them at all.
func TestRuleC8_DeadSlotsDelayTheStartByLessThan5s(t *testing.T) {
	dir := t.TempDir()
	file, state := filepath.Join(dir, "key", "root.key"), filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	credentials := filepath.Join(dir, "credentials")
	t.Setenv(credentialDirectory, credentials)
	r, err := OpenRoot(file, state)
	if err != nil {
		t.Fatal(err)
	}
	r.forge(t, kindTPM, "dead", someTPM(deadTPM(t)), strings.Repeat("k", 32))
	r.forge(t, kindTPM, "gone", someTPM("/nowhere/tpm"), strings.Repeat("k", 32))
	r.forge(t, kindCredential, "systemd", credentialWay{"c"}, strings.Repeat("c", 32))
	r.Close()
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	start := func() (*Root, time.Duration) {
		began := time.Now()
		r, err := OpenRoot(file, state)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r, time.Since(began)
	}

	r, took := start()
	t.Logf("with slots that are dead, gone and empty the start took %v", took)
	if !r.Locked() || took >= 15*time.Second || took < slotTime || len(r.Failed) != 3 || !strings.Contains(strings.Join(r.Failed, "\n"), "slot dead could not open the root key at the start") {
		t.Errorf("after %v it is locked: %v, because of %q", took, r.Locked(), r.Failed)
	}
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(credentials, "c"), []byte(strings.Repeat("c", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, took = start()
	if r.Locked() || took >= 10*time.Second {
		t.Errorf("after %v it is locked: %v, because of %q", took, r.Locked(), r.Failed)
	}
	// The key file comes first, and spares asking anybody else.
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	if r, took = start(); r.Locked() || len(r.Failed) != 0 || took >= slotTime {
		t.Errorf("after %v it is locked: %v, because of %q", took, r.Locked(), r.Failed)
	}
}

// A TPM that never answers keeps its slot from being made, and nobody from locking the root key meanwhile, nor from removing slots.
func TestRuleC8_DeadTPMHoldsNoLockUp(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRoot(filepath.Join(dir, "key", "root.key"), filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.forge(t, kindCredential, "systemd", credentialWay{"c"}, strings.Repeat("c", 32))
	slots, err := r.Slots()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	adding := make(chan error, 1)
	go func() {
		_, err := r.AddTPM(ctx, "dead", "none", deadTPM(t))
		adding <- err
	}()
	for r.making.TryLock() {
		r.making.Unlock()
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if err := errors.Join(r.RemoveSlot(t.Context(), slots[1].ID), r.Lock()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("they took %v", took)
	}
	cancel()
	if err := <-adding; err == nil || r.making.TryLock() == false {
		t.Errorf("adding it gives %v", err)
	}
}
