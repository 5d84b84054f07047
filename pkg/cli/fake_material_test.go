package cli

import (
	"bytes"
	"net/http"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// materialRoutes answers what is done to the key material of keys.
func (f *fake) materialRoutes(handle func(route string, fn func(r *http.Request) (any, error))) {
	handle(control.RouteKeyRotate, func(r *http.Request) (any, error) {
		k, err := f.key(r.PathValue("key"))
		if err == nil {
			k.Version++
		}
		return k, err
	})
	handle(control.RouteKeyRotation, f.keyRotation)
	handle(control.RouteKeyRewrap, f.keyRewrap)
	handle(control.RouteKeyPrepare, f.keyPrepare)
	handle(control.RouteKeyImport, f.keyImport)
	handle(control.RouteKeyDeleteMaterial, f.keyDeleteMaterial)
	handle(control.RouteDiskRewrap, f.diskRewrap)
}

func (f *fake) keyRotation(r *http.Request) (any, error) {
	var ask control.KeyRotation
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	if k.RotationDays = &ask.Days; ask.Days == 0 {
		k.RotationDays = nil
	}
	return k, nil
}

func (f *fake) keyRewrap(r *http.Request) (any, error) {
	var ask control.KeyRewrap
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	if ask.To == "" {
		ask.To = r.PathValue("key")
	}
	out := control.Rewrapped{Key: r.PathValue("key"), To: ask.To, Version: 2, Disks: 2, Uses: 3, Rewrapped: 2}
	if ask.To == "bad" {
		out.Failed = []control.RewrapFailed{{Kind: "disk", ID: "1-2", Name: "d", Error: control.ErrorOf(refusal.New(refusal.Damaged, "mend it", "the DEK of disk d is damaged"))}}
	}
	return out, nil
}

func (f *fake) keyPrepare(r *http.Request) (any, error) {
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	return control.ImportParameters{Key: *k, WrappingKey: "a public key\n", Token: "a token\n", Until: moment0().Add(24 * time.Hour)}, nil
}

func (f *fake) keyImport(r *http.Request) (any, error) {
	var ask control.KeyImport
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	if ask.Token != "a token\n" || !bytes.Equal(ask.Material, []byte("wrapped")) {
		return nil, refusal.New(refusal.Usage, "take the right one", "the import token is damaged")
	}
	k, err := f.key(r.PathValue("key"))
	if err == nil {
		k.State, k.Origin, k.Expires = "Enabled", "imported", ask.Expires
	}
	return k, err
}

func (f *fake) keyDeleteMaterial(r *http.Request) (any, error) {
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "the key material of key %s is destroyed", r.PathValue("key"))
	}
	k, err := f.setKey(r, "Pending import")
	if err == nil {
		k.(*control.Key).Version, k.(*control.Key).Expires = 0, nil
	}
	return k, err
}

func (f *fake) diskRewrap(r *http.Request) (any, error) {
	var ask control.DiskRewrap
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	k, err := f.key(ask.Key)
	if err == nil {
		d.Key = &control.DiskKey{ID: k.ID, Alias: k.Alias, State: k.State}
	}
	return d, err
}
