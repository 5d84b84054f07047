package daemon

import (
	"context"
	"encoding/json"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/secret"
)

// recoveryCreate makes a recovery kit, which leaves with the answer.
func (d *Daemon) recoveryCreate(c *call) (any, error) {
	ask := control.RecoveryCreate{}
	if err := control.ReadJSON(c.http, &ask); err != nil {
		return nil, err
	}
	c.about = ask.Name
	slot, shares, err := d.root.AddRecovery(c.ctx, ask.Name, ask.Shares, ask.Threshold)
	if err != nil {
		return nil, err
	}
	defer shares.Destroy()
	if err := d.recordMade(c, "root recovery create", slot); err != nil {
		return nil, err
	}
	answer, err := kitText(d.root.Store.String(), slot, ask, shares)
	return d.tellOnce(slot, answer, err)
}

// recordMade records a secret that opens the root key before it leaves. Where that can't be done the slot goes again.
func (d *Daemon) recordMade(c *call, verb string, slot keystore.SlotInfo) error {
	err := d.recordRelease(c, verb, slot.Name, "slot/"+slot.ID)
	if err != nil {
		d.dropSlot(slot)
	}
	return err
}

// tellOnce has a slot go again where its secret does not reach who asked for it: it must not count as a way to open the root key.
func (d *Daemon) tellOnce(slot keystore.SlotInfo, answer *secretAnswer, err error) (any, error) {
	if err != nil {
		d.dropSlot(slot)
		return nil, err
	}
	answer.lost = func() { d.recordOwn("slot.removed", control.DefaultProject, slot.Name, d.dropSlot(slot)) }
	return answer, nil
}

func (d *Daemon) dropSlot(slot keystore.SlotInfo) error {
	err := d.root.RemoveSlot(context.Background(), slot.ID)
	if err != nil {
		d.o.Log.Error("a slot whose secret nobody has was left behind", "slot", slot.ID, "err", err)
	}
	return err
}

// kitText lays control.RecoveryKit out as JSON, as escrowText does.
func kitText(store string, slot keystore.SlotInfo, kind control.RecoveryCreate, shares *secret.Key) (*secretAnswer, error) {
	count := shares.Len() / kit.ShareSize
	written, err := secret.Work(count*kit.Lines*kit.LineSize, secret.Purpose{Kind: "recovery", ID: slot.ID, For: "a recovery kit on its way out"})
	if err != nil {
		return nil, fmt.Errorf("daemon: recovery kit: %w", err)
	}
	defer written.Destroy()
	parts := []string{fmt.Sprintf(`{"store":%q,"slot":%s,"shares":%d,"threshold":%d,"sheets":[`, store, slotText(slot), kind.Shares, kind.Threshold)}
	var lines [][]byte
	for i := range count {
		open := fmt.Sprintf(`{"share":%d,"lines":["`, i+1)
		if i > 0 {
			open = "," + open
		}
		parts[len(parts)-1] += open
		for n := range kit.Lines {
			lines = append(lines, written.Bytes()[len(lines)*kit.LineSize:][:kit.LineSize])
			parts = append(parts, map[bool]string{false: `","`, true: `"]}`}[n == kit.Lines-1])
		}
	}
	parts[len(parts)-1] += "]}\n"
	secret.Do(func() {
		for i, line := range lines {
			kit.WriteLine(line, shares.Bytes()[i/kit.Lines*kit.ShareSize:][:kit.ShareSize], i%kit.Lines+1)
		}
	})
	return layOutSecrets(parts, lines)
}

// layOutSecrets writes parts with the secrets between them into key memory.
func layOutSecrets(parts []string, secrets [][]byte) (*secretAnswer, error) {
	size := len(parts[len(parts)-1])
	for i, s := range secrets {
		size += len(parts[i]) + len(s)
	}
	text, err := secret.Work(size, secret.Purpose{Kind: "slot", For: "the secret of a slot on its way out"})
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	secret.Do(func() {
		at := text.Bytes()
		for i, p := range parts {
			at = at[copy(at, p):]
			if i < len(secrets) {
				at = at[copy(at, secrets[i]):]
			}
		}
	})
	return &secretAnswer{text: text}, nil
}

// slotText is a slot as JSON; nothing in it is secret.
func slotText(slot keystore.SlotInfo) string {
	text, _ := json.Marshal(slotView(slot)) // strings and a time: it can't fail
	return string(text)
}

// recoveryOpen opens the root key by a recovery kit, which is not even asked for where it is open.
func (d *Daemon) recoveryOpen(c *call) (any, error) {
	return d.unlockGiven(c, d.root.UnlockRecovery)
}

// recoveryVerify tells whether a kit would open the root key.
func (d *Daemon) recoveryVerify(c *call) (any, error) {
	var slot keystore.SlotInfo
	err := d.withPassphrase(c, "verifying a recovery kit", func(ctx context.Context, shares *secret.Key) (err error) {
		slot, err = d.root.VerifyRecovery(ctx, shares)
		return err
	})
	c.slot = slot.ID
	return slotView(slot), err
}
