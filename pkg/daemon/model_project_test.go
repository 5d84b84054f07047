package daemon

import (
	"nbdcrypt/pkg/control"
)

// byDefault is what a disk is where its maker leaves that open (rule C1).
type byDefault struct {
	encrypted bool
	key       *modelKey // nil for evs/default
}

func (g *game) projectSet() {
	a := ask{who: g.somebody(), route: control.RouteProjectSet, name: control.DefaultProject}
	if g.oneIn(2, "encrypt by default") {
		encrypted := g.oneIn(2, "on")
		a.body = control.ProjectSet{EncryptByDefault: &encrypted}
		if _, done := g.play(a, nil); done {
			g.byDefault.encrypted = encrypted
		}
		return
	}
	ref, k := g.aKey((*modelKey).usable)
	a.body = control.ProjectSet{DefaultKey: &ref}
	if _, done := g.play(a, k.against(k.in(enabled))); done {
		if g.byDefault.key = k; k.isDefault {
			g.byDefault.key = nil
		}
	}
}
