package daemon

import (
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// B4: every alias that is allowed names its key afterwards, also one that a path would take for a part of itself.
func TestRuleB4_EveryAliasNamesItsKey(t *testing.T) {
	d := start(t)
	for alias, escaped := range map[string]string{"/": "%2F", "//": "%2F%2F", ":": ":", "-": "-", "_": "_", "a/": "a%2F", "/a": "%2Fa"} {
		made := mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"`+alias+`"}`)
		if k := mustAsk[control.Key](t, d, control.RouteKeyShow, escaped, ""); k.ID != made.ID {
			t.Errorf("%q shows %q", alias, k.Alias)
		}
		if k := mustAsk[control.Key](t, d, control.RouteKeyDisable, escaped, ""); k.ID != made.ID || k.State != "Disabled" {
			t.Errorf("%q disables %+v", alias, k)
		}
	}
	for _, route := range []string{control.RouteDiskShow, control.RouteAttach} {
		refused(t, d, refusal.NotFound, route, "%2F", "{}")
	}
}
