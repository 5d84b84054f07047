package access_test

import (
	"testing"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/refusal"
)

func named(name string) access.Guest { return access.Guest{UID: access.NoUID, Name: name} }

func TestMayOpen(t *testing.T) {
	allow := []access.Guest{{UID: nobody.UID}, named("cert:backup"), named("vsock:3")}
	for who, want := range map[access.Guest]bool{
		{UID: root.UID}: true, {UID: user.UID}: true, {UID: nobody.UID}: true, {UID: admin.UID}: false, {UID: audits.UID}: false, {UID: self.UID}: false,
		named("cert:backup"): true, named("vsock:3"): true, named("backup"): false, named("cert:vsock:3"): false, named("vsock:33"): false, named(""): false,
		{UID: nobody.UID, Name: "cert:dave"}: true, {UID: admin.UID, Name: "cert:backup"}: true,
	} {
		if got := access.MayOpen(who, user.UID, allow); got != want {
			t.Errorf("%+v may open: %v", who, got)
		}
	}
	// Who is not known is not let in by another who is not.
	if access.MayOpen(named(""), access.NoUID, []access.Guest{named("")}) {
		t.Error("a stranger may open")
	}
}

// A certificate's holder is the local user of that name, and is not what else the name could be read as.
func TestArrived(t *testing.T) {
	for name, uid := range map[string]uint32{"cert:root": 0, "cert:0": access.NoUID, "cert:nobody-has-this-name": access.NoUID, "cert:root\x00.org": access.NoUID, "root": access.NoUID,
		"vsock:root": access.NoUID, "cert:": access.NoUID, "": access.NoUID} {
		if got := access.Arrived(access.NoUID, name); got != (access.Guest{UID: uid, Name: name}) {
			t.Errorf("%q arrives as %+v", name, got)
		}
	}
	if got := access.Arrived(1000, ""); got != (access.Guest{UID: 1000}) {
		t.Errorf("user 1000 arrives as %+v", got)
	}
}

func TestParseGuest(t *testing.T) {
	for text, want := range map[string]access.Guest{"root": {}, "0": {}, "1234567": {UID: 1234567}, "cert:back up": named("cert:back up"),
		"vsock:03": named("vsock:3")} {
		if got, err := access.ParseGuest(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for text, code := range map[string]refusal.Code{"nobody-has-this-name": refusal.NotFound, "": refusal.NotFound, "4294967295": refusal.NotFound,
		"4294967296": refusal.NotFound, "-1": refusal.NotFound, "cert:": refusal.NotFound, "vsock:": refusal.Usage, "vsock:x": refusal.Usage} {
		if got, err := access.ParseGuest(text); refusal.CodeOf(err) != code || refusal.From(err).Hint == "" {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}
