package token

import (
	"reflect"
	"strings"
	"testing"
)

const good = "pkcs11:token=My%20token;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/nbdcrypt/pin"

func TestURIs(t *testing.T) {
	for s, want := range map[string]URI{
		good: {Token: "My token", Object: "root", Module: "/usr/lib/softhsm/libsofthsm2.so", PINFile: "/etc/nbdcrypt/pin"},
		"pkcs11:serial=00fF;id=%00%01x?module-path=/m.so": {Serial: "00fF", ID: []byte("\x00\x01x"), Module: "/m.so"},
		"pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=1;token=t;id=%01;object=%c3%a4?pin-source=/p&module-path=/m": {Model: "SoftHSM v2",
			Manufacturer: "SoftHSM project", Serial: "1", Token: "t", ID: []byte{1}, Object: "ä", Module: "/m", PINFile: "/p"},
		"pkcs11:token=t;object=o?module-path=/m&pin-source=file:///etc/p": {Token: "t", Object: "o", Module: "/m", PINFile: "/etc/p"},
	} {
		got, err := Parse(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v", s, got, err)
		}
	}
	u, err := Parse(good)
	if err != nil || u.String() != good || u.Name() != "pkcs11:token=My%20token;object=root" {
		t.Errorf("%s becomes %s, %v", good, u, err)
	}
}

func TestURIsThatAreRefused(t *testing.T) {
	const end = "?module-path=/m.so"
	for s, why := range map[string]string{
		"":                                                              "does not begin",
		"PKCS11:token=t;object=o" + end:                                 "does not begin",
		"pkcs11:" + end:                                                 "not a name",
		"pkcs11:object=o" + end:                                         "no token",
		"pkcs11:token=t" + end:                                          "no key",
		"pkcs11:token=t;object=o":                                       "no library",
		"pkcs11:token=t;object=o;" + end:                                "not a name",
		"pkcs11:token=t;object=" + end:                                  "not a name",
		"pkcs11:token=t;token=u;id=1" + end:                             "twice",
		"pkcs11:token=t;object=o;slot-id=1" + end:                       "known are token",
		"pkcs11:token=t;object=o;type=private" + end:                    "known are token",
		"pkcs11:token=t;object=o?module-name=softhsm":                   "known are module-path",
		"pkcs11:token=t;object=o" + end + "&pin-value=1234":             "command line",
		"pkcs11:token=t;object=o" + end + "&":                           "not a name",
		"pkcs11:token=t;object=o?module-path=m.so":                      "absolute",
		"pkcs11:token=t;object=o?module-path=/a/../m.so":                "shortest",
		"pkcs11:token=t;object=o" + end + "&pin-source=%7C/bin/pin":     "absolute",
		"pkcs11:token=t;object=o" + end + "&pin-source=file:pin":        "absolute",
		"pkcs11:token=t;object=o" + end + "?pin-source=/p":              "%3F",
		"pkcs11:token=my token;object=o" + end:                          "%20",
		"pkcs11:token=t%;object=o" + end:                                "ends after",
		"pkcs11:token=t%2;object=o" + end:                               "ends after",
		"pkcs11:token=t%zz;object=o" + end:                              "two hex digits",
		"pkcs11:token=%00;object=o" + end:                               "not text",
		"pkcs11:token=%ff;object=o" + end:                               "not text",
		"pkcs11:token=t;id=" + strings.Repeat("x", maxID+1) + end:       "the limit",
		"pkcs11:token=t;object=" + strings.Repeat("x", maxURI) + end:    "the limit",
		"pkcs11:token=t;object=" + strings.Repeat("x", maxText+1) + end: "not text",
	} {
		if u, err := Parse(s); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q is %+v, %v", s, u, err)
		}
	}
}

func FuzzURI(f *testing.F) {
	f.Add(good)
	f.Add("pkcs11:serial=1;id=%00%ff?module-path=/m.so")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if err != nil || !reflect.DeepEqual(u, again) {
			t.Errorf("%q is %+v, and written again %+v, %v", s, u, again, err)
		}
	})
}
