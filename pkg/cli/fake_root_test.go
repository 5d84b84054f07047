package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/refusal"
)

// askerKey is where a request's context keeps what asks for its passphrase.
type askerKey struct{}

// typedLine reads what is typed in place of a terminal, a line and no more.
func typedLine(_ context.Context, in io.Reader) (line []byte, err error) {
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := in.Read(b); err != nil || b[0] == '\n' {
			return line, nil
		}
	}
}

// take reads the passphrase that follows a call.
func (f *fake) take(r *http.Request) (string, error) {
	var passphrase []byte
	err := r.Context().Value(askerKey{}).(*control.Asker).Passphrase(func(n int) ([]byte, error) {
		passphrase = make([]byte, n)
		return passphrase, nil
	})
	f.given = append(f.given, string(passphrase))
	return string(passphrase), err
}

// now is the state of the root key after a call.
func (f *fake) now(locked bool, by string) (any, error) {
	s := f.root
	s.Changed, s.Locked = f.root.Locked != locked, locked
	if i := slices.IndexFunc(s.Slots, func(s control.Slot) bool { return s.Kind == by }); s.Changed && i >= 0 {
		s.Slot = &s.Slots[i]
	}
	f.root.Locked = locked
	return s, nil
}

func (f *fake) rootUnlock(*http.Request) (any, error) {
	if f.root.Locked && !f.root.Slots[0].Present {
		return nil, refusal.New(refusal.Locked, "Put it back.", "the root key file /root.key is missing")
	}
	return f.now(false, control.SlotKeyFile)
}

func (f *fake) rootPassphrase(r *http.Request) (any, error) {
	if !f.root.Locked {
		return f.now(false, "")
	}
	if f.refuse != nil {
		return nil, f.refuse
	}
	given, err := f.take(r)
	if err == nil && (f.passphrase == "" || given != f.passphrase) {
		err = refusal.New(refusal.Locked, "Type it as it was set.", "the passphrase opens no slot")
	}
	if err != nil {
		return nil, err
	}
	return f.now(false, control.SlotPassphrase)
}

func (f *fake) rootLock(*http.Request) (any, error) {
	for _, d := range f.disks {
		f.root.Attached += len(d.Attachments)
	}
	return f.now(true, "")
}

func (f *fake) slotAdd(r *http.Request) (_ any, err error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	if f.passphrase, err = f.take(r); err != nil {
		return nil, err
	}
	made := moment0()
	slot := control.Slot{ID: f.id(), Kind: control.SlotPassphrase, Name: r.URL.Query().Get(control.QueryName), Detail: "argon2id", Present: true, Created: &made}
	f.root.Slots = append(f.root.Slots, slot)
	return slot, nil
}

func (f *fake) slotRemove(r *http.Request) (any, error) {
	i := slices.IndexFunc(f.root.Slots, func(s control.Slot) bool { return r.PathValue("slot") == s.Name || r.PathValue("slot") == s.ID })
	if i < 0 {
		return nil, refusal.New(refusal.NotFound, "`nbdcrypt root slot list` lists them.", "no slot %s", r.PathValue("slot"))
	}
	slot := f.root.Slots[i]
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "slot %s will not open the root key any more", slot.Name)
	}
	f.root.Slots = slices.Delete(slices.Clone(f.root.Slots), i, i+1)
	return slot, nil
}

// lockedFake is a fake whose root key is locked, without its key file, and opens with a passphrase.
func lockedFake(f *fake, passphrase string) *fake {
	f.root.Locked, f.root.Slots[0].Present, f.passphrase = true, false, strings.TrimSpace(passphrase)
	f.root.Slots = append(f.root.Slots, control.Slot{ID: "p", Kind: control.SlotPassphrase, Name: "alice", Present: true})
	return f
}

// slotRoutes are those of the other kinds of slots.
func (f *fake) slotRoutes(handle func(route string, fn func(r *http.Request) (any, error))) {
	handle(control.RouteSlotKeyFile, func(*http.Request) (any, error) { return f.newSlot(control.SlotKeyFile, control.SlotKeyFile), nil })
	handle(control.RouteSlotTPM, func(r *http.Request) (any, error) {
		var ask control.SlotTPMAdd
		err := control.ReadJSON(r, &ask)
		return f.newSlot(control.SlotTPM, ask.Name), err
	})
	handle(control.RouteSlotReseal, func(r *http.Request) (any, error) {
		var ask control.SlotSeal
		err := control.ReadJSON(r, &ask)
		return f.newSlot(control.SlotTPM, r.PathValue("slot")), err
	})
	handle(control.RouteSlotCredential, func(r *http.Request) (any, error) {
		var ask control.SlotCredentialAdd
		err := control.ReadJSON(r, &ask)
		slot := f.newSlot(control.SlotCredential, ask.Name)
		f.root.Slots = append(f.root.Slots, slot)
		return control.Credential{Slot: slot, Credential: "nbdcrypt.root", Secret: strings.Repeat("5e", 32)}, err
	})
	handle(control.RouteSlotGive, func(r *http.Request) (any, error) {
		_, err := f.take(r)
		query := r.URL.Query()
		return control.Credential{Slot: f.newSlot(control.SlotCredential, query.Get(control.QueryName)), Credential: query.Get(control.QueryCredential)}, err
	})
	handle(control.RouteRecoveryCreate, f.recoveryCreate)
	handle(control.RouteRecoveryOpen, func(r *http.Request) (any, error) {
		if _, err := f.take(r); err != nil {
			return nil, err
		}
		return f.now(false, "")
	})
	handle(control.RouteRecoveryVerify, func(r *http.Request) (any, error) {
		_, err := f.take(r)
		return f.newSlot(control.SlotRecovery, "recovery"), err
	})
}

func (f *fake) newSlot(kind, name string) control.Slot {
	made := moment0()
	return control.Slot{ID: f.id(), Kind: kind, Name: name, Detail: "some " + kind, Automatic: kind != control.SlotRecovery, Present: true, Created: &made}
}

// fakeKit are the shares of a kit as it was asked for, of a secret that is all sevens.
func fakeKit(count, threshold int, tag byte) []byte {
	shares := make([]byte, count*kit.ShareSize)
	if err := kit.Split(shares, bytes.Repeat([]byte{7}, kit.SecretSize), make([]byte, (threshold-1)*kit.SecretSize), [4]byte{tag}, threshold); err != nil {
		panic(err)
	}
	return shares
}

func (f *fake) recoveryCreate(r *http.Request) (any, error) {
	var ask control.RecoveryCreate
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	made := control.RecoveryKit{Store: "5709e000-0000-4000-8000-000000000000", Slot: f.newSlot(control.SlotRecovery, ask.Name), Shares: ask.Shares, Threshold: ask.Threshold}
	f.root.Slots = append(f.root.Slots, made.Slot)
	for i, share := range slices.Collect(slices.Chunk(fakeKit(ask.Shares, ask.Threshold, 1), kit.ShareSize)) {
		sheet := control.RecoverySheet{Share: i + 1}
		for n := 1; n <= kit.Lines; n++ {
			line := make([]byte, kit.LineSize)
			kit.WriteLine(line, share, n)
			sheet.Lines = append(sheet.Lines, string(line))
		}
		made.Sheets = append(made.Sheets, sheet)
	}
	return made, nil
}
