package daemon

import (
	"nbdcrypt/pkg/control"
)

const defaultAlias = "evs/default"

// aKey draws what a call names a key by, and the key, nil where there is none: mostly one that is there and that the call fits.
func (g *game) aKey(fits func(*modelKey) bool) (ref string, k *modelKey) {
	if list := fitting(g, g.live(), fits); len(list) > 0 && !g.oneIn(20, "a key that is not there") {
		k = among(g, "key", list...)
		return among(g, "by", k.alias, k.id), k
	}
	if gone := g.goneKeys(); len(gone) > 0 {
		return among(g, "gone", gone...).id, nil
	}
	return "nothing", nil
}

// fitting is mostly those of the list that fit, if any do.
func fitting[T any](g *game, list []T, fits func(T) bool) []T {
	var fit []T
	for _, x := range list {
		if fits(x) {
			fit = append(fit, x)
		}
	}
	if len(fit) == 0 || g.oneIn(4, "one that need not fit") {
		return list
	}
	return fit
}

func anyKey(*modelKey) bool { return true }

// ofUser tells keys that are no default key, in one of these states.
func ofUser(states ...string) func(*modelKey) bool {
	return func(k *modelKey) bool { return !k.isDefault && k.in(states...) }
}

// generated are those of them whose material was made here, brought those whose was brought.
func generated(states ...string) func(*modelKey) bool {
	return func(k *modelKey) bool { return !k.imported && ofUser(states...)(k) }
}

func brought(states ...string) func(*modelKey) bool {
	return func(k *modelKey) bool { return k.imported && ofUser(states...)(k) }
}

// reserved is an alias that no key of a user may have (rule A9).
const reserved = "x/default"

func (g *game) anAlias() string {
	if g.oneIn(20, "a reserved alias") {
		return reserved
	}
	return among(g, "alias", "a", "b/c", "d", "e")
}

func (g *game) grantCreate() {
	first := g.defaultKey() == nil
	answer, done := g.play(ask{who: g.somebody(), route: control.RouteGrantCreate}, refuses().when(first && g.locked, 10))
	if !done {
		return
	}
	g.granted = true
	if grant := decode[control.Grant](g, answer); grant.Project != control.DefaultProject {
		g.failf("granted: %s", answer)
	}
	if first { // rule A6: with the first grant, once
		shown, _ := g.play(ask{route: control.RouteKeyShow, name: defaultAlias}, nil)
		k := g.learn(decode[control.Key](g, shown), &modelKey{alias: defaultAlias, isDefault: true, state: enabled, versions: 1})
		g.keys = append([]*modelKey{k}, g.keys...)
	}
}

func (g *game) grantRevoke() {
	encrypted := 0
	for _, d := range g.disks {
		if d.key != nil {
			encrypted++
		}
	}
	a, sure := g.perhapsSure(ask{who: g.somebody(), route: control.RouteGrantRevoke})
	if _, done := g.play(a, refuses().when(!g.granted, 3).when(encrypted > 0 && !sure, 9)); done {
		g.granted = false
	}
}

// perhapsSure draws whether a call is confirmed.
func (g *game) perhapsSure(a ask) (ask, bool) {
	if g.oneIn(5, "without yes") {
		return a, false
	}
	return a.with(yes), true
}

func (g *game) keyCreate() {
	in := control.KeyCreate{Alias: g.anAlias(), Origin: among(g, "origin", "", "generated", "imported", "imported")}
	what := refuses().when(in.Alias == reserved, 2).when(g.byAlias(in.Alias) != nil, 6).when(!g.granted, 5).when(g.locked, 10)
	answer, done := g.play(ask{who: g.somebody(), route: control.RouteKeyCreate, body: in}, what)
	if !done {
		return
	}
	k := &modelKey{alias: in.Alias, state: enabled, versions: 1}
	if in.Origin == "imported" { // it has no material yet
		k.imported, k.state, k.versions = true, pendingImport, 0
	}
	g.keys = append(g.keys, g.learn(decode[control.Key](g, answer), k))
}

// learn takes over what only the daemon knows of a new key.
func (g *game) learn(v control.Key, k *modelKey) *modelKey {
	k.id, k.created = v.ID, v.Created
	if !k.created.Equal(g.latest()) {
		g.failf("key %s was created at %v, and it is %v", k.alias, k.created, g.latest())
	}
	g.sameKey(v, k)
	return k
}

// keyVerb plays a verb that changes a key, and holds what it answers against the model.
func (g *game) keyVerb(route string, body any, k *modelKey, ref string, what against, change func()) {
	answer, done := g.play(ask{who: g.somebody(), route: route, name: ref, body: body}.about(k), what)
	if !done {
		return
	}
	change()
	g.sameKey(decode[control.Key](g, answer), k)
}

func (g *game) keyEnable() {
	ref, k := g.aKey(ofUser(disabled))
	g.keyVerb(control.RouteKeyEnable, nil, k, ref, k.against(k.in(enabled, disabled)), func() { k.state = enabled })
}

func (g *game) keyShow() {
	ref, k := g.aKey(anyKey)
	g.keyVerb(control.RouteKeyShow, nil, k, ref, k.against(true), func() {})
}

func (g *game) rootLock() { g.rootVerb(control.RouteRootLock, true) }

func (g *game) rootUnlock() { g.rootVerb(control.RouteRootUnlock, false) }

func (g *game) rootVerb(route string, lock bool) {
	answer, done := g.play(ask{who: g.somebody(), route: route}, nil)
	if !done {
		return
	}
	state := decode[control.RootState](g, answer)
	if state.Locked != lock || state.Changed != (lock != g.locked) {
		g.failf("the root key was locked: %v; now: %s", g.locked, answer)
	}
	g.locked = lock
}
