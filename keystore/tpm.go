package keystore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	kindTPM = "tpm2"
	// TPMDevice and TPMPCRs are what a TPM slot is made with where nobody says otherwise: PCR 7 has what Secure Boot is set to, and
	// by whom what booted was signed.
	TPMDevice = "/dev/tpmrm0"
	TPMPCRs   = "sha256:7"

	noPCRs      = "none"
	ownerParent = "owner"
	pcrCount    = 24
	maxSealed   = 700
)

// tpmWay takes a secret that a TPM 2.0 unseals.
type tpmWay struct {
	tpm    child.TPM
	sealed child.Sealed
}

func parseTPM(l *lines) way {
	device := l.next("device")
	t, err := parsePCRs(l.next("pcrs"))
	l.check(err)
	t.Device = device
	parent := uint64(0)
	if word := l.next("parent"); word != ownerParent {
		parent, err = strconv.ParseUint(word, 16, 32)
		l.check(err)
	}
	return tpmWay{t, child.Sealed{Parent: uint32(parent), SRK: l.bytes("srk", maxSealed), Public: l.bytes("public", maxSealed), Private: l.bytes("private", maxSealed)}}
}

// bytes reads a value of at most so many bytes.
func (l *lines) bytes(word string, most int) []byte {
	b, err := hex.DecodeString(l.next(word))
	l.bad = l.bad || len(b) > most
	l.check(err)
	return b
}

func (w tpmWay) lines() string {
	parent := ownerParent
	if w.sealed.Parent != 0 {
		parent = fmt.Sprintf("%08x", w.sealed.Parent)
	}
	return fmt.Sprintf("device %s\npcrs %s\nparent %s\nsrk %x\npublic %x\nprivate %x\n", w.tpm.Device, pcrWord(w.tpm), parent, w.sealed.SRK, w.sealed.Public, w.sealed.Private)
}

func (w tpmWay) check() error { return checkDevice(w.tpm.Device) }

func checkDevice(path string) error {
	if len(path) > 200 || !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return fmt.Errorf("%.300q can't be a TPM: it is named by a whole path", path)
	}
	return nil
}

// parsePCRs reads registers as tpm2-tools write them: sha256:0,7. There is one spelling for each set.
func parsePCRs(word string) (t child.TPM, err error) {
	if word == noPCRs {
		return t, nil
	}
	bank, list, _ := strings.Cut(word, ":")
	bad := fmt.Errorf("%.100q names no registers (PCRs) of a TPM", word)
	if bank != "sha256" && bank != "sha384" {
		return t, bad
	}
	t.Bank = bank
	for _, digits := range strings.Split(list, ",") {
		n, err := strconv.ParseUint(digits, 10, 8)
		if err != nil || n >= pcrCount {
			return t, bad
		}
		t.PCRs |= 1 << n
	}
	if pcrWord(t) != word {
		return t, bad
	}
	return t, nil
}

func pcrWord(t child.TPM) string {
	if t.PCRs == 0 {
		return noPCRs
	}
	var list []string
	for n := range pcrCount {
		if t.PCRs>>n&1 == 1 {
			list = append(list, strconv.Itoa(n))
		}
	}
	return t.Bank + ":" + strings.Join(list, ",")
}

func (w tpmWay) detail() string {
	if w.tpm.PCRs == 0 {
		return "the TPM " + w.tpm.Device + ", whatever has booted"
	}
	return "the TPM " + w.tpm.Device + ", while its registers " + pcrWord(w.tpm) + " are as they were"
}

func (tpmWay) automatic() bool { return true }

func (w tpmWay) ready() error {
	_, err := os.Stat(w.tpm.Device)
	return err
}

func (w tpmWay) release(ctx context.Context, _ *secret.Key) (*secret.Key, error) {
	key, err := child.UnsealTPM(ctx, w.tpm, w.sealed, secret.Purpose{Kind: "derived", For: "opening or making a TPM slot"})
	if err != nil {
		return nil, tpmRefusal(err)
	}
	return key, nil
}

// tpmRefusal says what can be done about a TPM that does not do as asked.
func tpmRefusal(err error) error {
	switch {
	case errors.Is(err, child.ErrPCRs):
		return refusal.New(refusal.Locked, "where that was meant (firmware, Secure Boot), open the root key by another slot, then run `nbdcrypt root slot reseal SLOT`", "%w", err)
	case errors.Is(err, child.ErrOtherTPM):
		return refusal.New(refusal.Locked, "open the root key by another slot, then run `nbdcrypt root slot reseal SLOT`", "%w", err)
	case errors.Is(err, child.ErrBank):
		return refusal.New(refusal.Usage, "choose others with --pcrs; `tpm2_getcap pcrs` shows which there are", "%w", err)
	case errors.Is(err, child.ErrTPMGone):
		return refusal.New(refusal.Locked, "see that it is there and that the daemon's user may use it (group tss); --tpm-device names another", "%w", err)
	case errors.Is(err, child.ErrTPMSlow):
		return refusal.New(refusal.Locked, "see what the system's log says of the TPM", "%w", err)
	}
	return refusal.New(refusal.Locked, "see what the system's log says of the TPM", "%w", err)
}

// AddTPM makes a slot that a TPM opens; pcrs and device are as TPMPCRs and TPMDevice.
func (r *Root) AddTPM(ctx context.Context, name, pcrs, device string) (SlotInfo, error) {
	t, err := checkTPM(pcrs, device)
	if err != nil {
		return SlotInfo{}, err
	}
	return r.addSlot(ctx, kindTPM, name, func(slot) (fresh, error) { return sealFresh(ctx, t) })
}

func checkTPM(pcrs, device string) (child.TPM, error) {
	t, err := parsePCRs(pcrs)
	if err != nil {
		return t, refusal.New(refusal.Usage, "write them as sha256:7 or sha256:0,7 in rising order, from 0 to 23; or none", "%w", err)
	}
	if err := checkDevice(device); err != nil {
		return t, refusal.New(refusal.Usage, "name a device such as "+TPMDevice+", or the unix socket of a TPM in software", "%w", err)
	}
	t.Device = device
	return t, nil
}

func sealFresh(ctx context.Context, t child.TPM) (fresh, error) {
	key, err := secret.RandomWork(child.SecretSize, secret.Purpose{Kind: "derived", For: "making a TPM slot"})
	if err != nil {
		return fresh{}, fmt.Errorf("keystore: %w", err)
	}
	sealed, err := child.SealTPM(ctx, t, key)
	if err != nil {
		key.Destroy()
		return fresh{}, tpmRefusal(err)
	}
	return fresh{way: tpmWay{t, sealed}, secret: key}, nil
}

// Reseal seals a TPM slot anew, to what the registers are now. Where pcrs or device is empty it stays as it was. The slot keeps
// its name and id; what was sealed before opens nothing of this directory any more.
func (r *Root) Reseal(ctx context.Context, id, pcrs, device string) (SlotInfo, error) {
	r.making.Lock()
	defer r.making.Unlock()
	if err := r.needOpen(); err != nil {
		return SlotInfo{}, err
	}
	found, err := r.findSlots()
	if err != nil {
		return SlotInfo{}, err
	}
	for _, f := range found {
		if f.id.String() != id {
			continue
		}
		w, is := f.way.(tpmWay)
		if !is {
			return SlotInfo{}, refusal.New(refusal.Usage, "remove it, and add another one", "slot %s is no whole slot of kind %s: there is nothing to seal", f.id, kindTPM)
		}
		if pcrs == "" {
			pcrs = pcrWord(w.tpm)
		}
		if device == "" {
			device = w.tpm.Device
		}
		t, err := checkTPM(pcrs, device)
		if err != nil {
			return SlotInfo{}, err
		}
		return r.fillSlot(ctx, f.slot, true, func(slot) (fresh, error) { return sealFresh(ctx, t) })
	}
	return SlotInfo{}, refusal.New(refusal.NotFound, "`nbdcrypt root slot list` lists them", "there is no slot %.100q", id)
}
