package daemon

import (
	"cmp"
	"context"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// needOpenFor refuses what changes slots while the root key is locked, before anything is asked for.
func (d *Daemon) needOpenFor(what string) error {
	if d.root.Locked() {
		return refusal.New(refusal.Locked, "run `nbdcrypt root unlock`, then try again", "%s: the root key is locked", what)
	}
	return nil
}

func (d *Daemon) slotKeyFile(c *call) (any, error) {
	c.about = keystore.KeyFileSlot
	slot, err := d.root.AddKeyFile()
	if err != nil {
		return nil, err
	}
	d.o.Log.Info("a root key file was made", "path", d.o.RootKey, "by", c.caller.User)
	return slotView(slot), nil
}

func (d *Daemon) slotTPM(c *call) (any, error) {
	var ask control.SlotTPMAdd
	if err := control.ReadJSON(c.http, &ask); err != nil {
		return nil, err
	}
	c.about = ask.Name
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	slot, err := d.root.AddTPM(ctx, ask.Name, cmp.Or(ask.PCRs, keystore.TPMPCRs), cmp.Or(ask.Device, keystore.TPMDevice))
	return slotView(slot), err
}

func (d *Daemon) slotReseal(c *call) (any, error) {
	var ask control.SlotSeal
	if err := control.ReadJSON(c.http, &ask); err != nil {
		return nil, err
	}
	slot, err := d.slot(c.http.PathValue("slot"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	slot, err = d.root.Reseal(ctx, slot.ID, ask.PCRs, ask.Device)
	return slotView(slot), err
}

// slotCredential makes a slot with a secret of ours, which leaves with the answer.
func (d *Daemon) slotCredential(c *call) (any, error) {
	var ask control.SlotCredentialAdd
	if err := control.ReadJSON(c.http, &ask); err != nil {
		return nil, err
	}
	c.about = ask.Name
	credential := cmp.Or(ask.Credential, keystore.Credential)
	slot, made, err := d.root.AddCredential(c.ctx, ask.Name, credential, nil)
	if err != nil {
		return nil, err
	}
	defer made.Destroy()
	if err := d.recordMade(c, "root slot add", slot); err != nil {
		return nil, err
	}
	answer, err := layOutSecrets([]string{`{"slot":` + slotText(slot) + `,"credential":"` + credential + `","secret":"`, "\"}\n"}, [][]byte{made.Bytes()})
	return d.tellOnce(slot, answer, err)
}

// slotGive makes a slot with a secret that somebody gave.
func (d *Daemon) slotGive(c *call) (any, error) {
	if err := d.needOpenFor("a slot can't be added"); err != nil {
		return nil, err
	}
	query := c.http.URL.Query()
	credential := cmp.Or(query.Get(control.QueryCredential), keystore.Credential)
	var slot keystore.SlotInfo
	err := d.withPassphrase(c, "adding a slot", func(ctx context.Context, given *secret.Key) (err error) {
		slot, _, err = d.root.AddCredential(ctx, query.Get(control.QueryName), credential, given)
		return err
	})
	return control.Credential{Slot: slotView(slot), Credential: credential}, err
}
