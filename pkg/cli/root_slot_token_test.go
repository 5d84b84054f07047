package cli

import (
	"net/http"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

func (f *fake) slotToken(r *http.Request) (any, error) {
	var ask control.SlotTokenAdd
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	made := moment0()
	slot := control.Slot{ID: f.id(), Kind: control.SlotPKCS11, Name: ask.Name, Detail: "aes-gcm by " + ask.Token, Automatic: true, Present: true, Created: &made}
	f.root.Slots = append(f.root.Slots, slot)
	return slot, nil
}

// TestSlotByAToken: a URI is looked at before anybody is asked.
func TestSlotByAToken(t *testing.T) {
	f := serveFake(t)
	const uri = "pkcs11:token=box;object=root?module-path=/m.so&pin-source=file:/pin"
	if got := try(t, f.run, "", "root", "slot", "add", "pkcs11", "--token", uri); got.code != 0 || !strings.Contains(got.out, "aes-gcm by "+uri) {
		t.Errorf("%+v", got)
	}
	if s := f.root.Slots[len(f.root.Slots)-1]; s.Name != "pkcs11" {
		t.Errorf("it made %+v", s)
	}
	for _, c := range [][]string{nil, {"--token", "/m.so"}, {"--token", uri + "&pin-value=1234"}} {
		if got := try(t, f.run, "", append([]string{"root", "slot", "add", "pkcs11"}, c...)...); got.code != 2 || !strings.Contains(got.err, "does not name a key") {
			t.Errorf("%q: %+v", c, got)
		}
	}
	if len(f.root.Slots) != 2 {
		t.Errorf("there are %+v", f.root.Slots)
	}
}
