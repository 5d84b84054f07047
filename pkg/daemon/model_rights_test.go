package daemon

import (
	"slices"
	"strconv"

	"nbdcrypt/pkg/control"
)

// The people of the game; the system knows none of them by name.
const (
	boss    uint32 = 0
	alice   uint32 = 61001 // uses disks, at first
	bob     uint32 = 61002 // administers keys, at first
	carol   uint32 = 61003 // reads the log, at first
	mallory uint32 = 61004 // is nobody, at first
)

const (
	asUser    = "user"
	asAdmin   = "security-admin"
	asAuditor = "auditor"
)

// rights are what people may do in the project.
type rights struct{ roles map[uint32][]string }

// modelGrant lets a user do one thing with a key (rule B8).
type modelGrant struct {
	id, operation string
	uid           uint32
}

// appoint gives people their first roles.
func (g *game) appoint() {
	g.roles = map[uint32][]string{}
	for uid, role := range []string{alice - alice: asUser, bob - alice: asAdmin, carol - alice: asAuditor} {
		whom := alice + uint32(uid)
		g.play(ask{route: control.RouteRoleGrant, body: control.RoleChange{User: nameOfUser(whom), Role: role}}, nil)
		g.roles[whom] = []string{role}
	}
}

func nameOfUser(uid uint32) string { return strconv.Itoa(int(uid)) }

// somebody draws who makes a call: mostly one who may do everything.
func (g *game) somebody() uint32 {
	if g.opening || !g.oneIn(4, "others") {
		return boss
	}
	return among(g, "who", alice, bob, carol, mallory)
}

// right is what it takes to make a call: one of the roles, or a grant of the key that it is about.
type right struct {
	roles []string
	grant string
}

var (
	users    = right{roles: []string{asUser}}
	admins   = right{roles: []string{asAdmin}}
	everyone = right{roles: []string{asUser, asAdmin, asAuditor}}
)

// or is the right with a grant that gives it too.
func (r right) or(grant string) right { return right{r.roles, grant} }

// takes is the whole policy (rules A37, B8, C17): users have the data, security administrators the keys, auditors look.
var takes = map[string]right{
	control.RouteGrantCreate:       admins,
	control.RouteGrantRevoke:       admins,
	control.RouteKeyCreate:         {roles: []string{asUser, asAdmin}},
	control.RouteKeyList:           everyone.or("describe"),
	control.RouteKeyShow:           everyone.or("describe"),
	control.RouteKeyUses:           everyone.or("describe"),
	control.RouteKeyEnable:         admins,
	control.RouteKeyDisable:        admins,
	control.RouteKeyUpdate:         admins,
	control.RouteKeySchedule:       admins,
	control.RouteKeyCancel:         admins,
	control.RouteKeyDelete:         admins,
	control.RouteKeyPredict:        admins,
	control.RouteKeyRotate:         admins,
	control.RouteKeyRotation:       admins,
	control.RouteKeyPrepare:        admins,
	control.RouteKeyImport:         admins,
	control.RouteKeyDeleteMaterial: admins,
	control.RouteKeyRewrap:         {roles: []string{asUser, asAdmin}},
	control.RouteDiskRewrap:        right{roles: []string{asUser, asAdmin}}.or("decrypt"),
	control.RouteDiskRekey:         users,
	control.RouteSnapshotDelete:    users,
	control.RouteKeyGrant:          admins,
	control.RouteKeyGrants:         right{roles: []string{asAdmin, asAuditor}}.or("any"),
	control.RouteKeyGrantRevoke:    admins,
	control.RouteKeyGrantRetire:    right{}.or("any"),
	control.RouteClockShow:         everyone,
	control.RouteClockAccept:       admins,
	control.RouteDiskCreate:        users.or("encrypt"),
	control.RouteDiskList:          everyone.or("decrypt"),
	control.RouteDiskShow:          everyone.or("decrypt"),
	control.RouteDiskDelete:        users,
	control.RouteDiskEscrow:        users,
	control.RouteAttach:            users.or("decrypt"),
	control.RouteDetach:            users.or("decrypt"),
	control.RouteRootLock:          admins,
	control.RouteRootUnlock:        admins,
	control.RouteRoleGrant:         admins,
	control.RouteRoleRevoke:        admins,
	control.RouteProjectSet:        admins,
}

// has tells whether somebody has one of the roles.
func (g *game) has(uid uint32, roles ...string) bool {
	return uid == boss || slices.ContainsFunc(g.roles[uid], func(r string) bool { return slices.Contains(roles, r) })
}

// grantedTo tells whether a key is granted to somebody for an operation.
func (k *modelKey) grantedTo(uid uint32, operation string) bool {
	return k != nil && !k.gone && slices.ContainsFunc(k.grants, func(m modelGrant) bool {
		return m.uid == uid && (operation == "any" || m.operation == operation)
	})
}

// shared tells keys that are granted to somebody.
func (k *modelKey) shared() bool { return len(k.grants) > 0 }

// may tells whether somebody may make a call.
func (g *game) may(a ask) bool {
	right := takes[a.route]
	return g.has(a.who, right.roles...) || slices.ContainsFunc(a.keys, func(k *modelKey) bool { return k.grantedTo(a.who, right.grant) })
}

// aPerson draws whom a right is for.
func (g *game) aPerson() uint32 { return among(g, "whom", alice, bob, carol, mallory, mallory) }

func (g *game) roleGrant() {
	who, whom, role := g.somebody(), g.aPerson(), among(g, "role", asUser, asAdmin, asAuditor)
	holds := append(slices.Clip(g.roles[whom]), role)
	// Rule C17: it takes somebody else to be both.
	himself := who == whom && role != asAuditor && slices.Contains(holds, asUser) && slices.Contains(holds, asAdmin)
	a := ask{who: who, route: control.RouteRoleGrant, body: control.RoleChange{User: nameOfUser(whom), Role: role}}
	if _, done := g.play(a, refuses().when(himself, 5)); done && !slices.Contains(g.roles[whom], role) {
		g.roles[whom] = holds
	}
}

func (g *game) roleRevoke() {
	whom, role := g.aPerson(), among(g, "role", asUser, asAdmin, asAuditor)
	a := ask{who: g.somebody(), route: control.RouteRoleRevoke, body: control.RoleChange{User: nameOfUser(whom), Role: role}}
	if _, done := g.play(a, refuses().when(!slices.Contains(g.roles[whom], role), 3)); done {
		g.roles[whom] = slices.DeleteFunc(slices.Clone(g.roles[whom]), func(r string) bool { return r == role })
	}
}

func (g *game) keyGrant() {
	ref, k := g.aKey(anyKey)
	who, whom, operation := g.somebody(), g.aPerson(), among(g, "operation", "decrypt", "encrypt", "describe")
	himself := who == whom && operation != "describe" && slices.Contains(g.roles[whom], asAdmin)
	a := ask{who: who, route: control.RouteKeyGrant, name: ref, body: control.KeyGrantCreate{User: nameOfUser(whom), Operation: operation}}
	answer, done := g.play(a.about(k), k.against(true).when(himself, 5))
	if !done {
		return
	}
	made := modelGrant{decode[control.KeyGrant](g, answer).ID, operation, whom}
	if k.grantedTo(whom, operation) { // it stays the same
		if !slices.Contains(k.grants, made) {
			g.failf("granted again: %s, and there is %v", answer, k.grants)
		}
		return
	}
	k.grants = append(slices.Clip(k.grants), made)
}

func (g *game) keyGrants() {
	ref, k := g.aKey((*modelKey).shared)
	a := ask{who: g.somebody(), route: control.RouteKeyGrants, name: ref}.about(k)
	answer, done := g.play(a, k.against(true))
	if !done {
		return
	}
	var have, want []string
	for _, x := range decode[[]control.KeyGrant](g, answer) {
		have = append(have, x.ID)
	}
	for _, m := range k.grants {
		if g.has(a.who, asAdmin, asAuditor) || m.uid == a.who {
			want = append(want, m.id)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		g.failf("the grants are %v, want %v", have, want)
	}
}

// keyGrantEnd revokes a grant, or retires it: that only the one may do who has it.
func (g *game) keyGrantEnd() {
	ref, k := g.aKey((*modelKey).shared)
	m := modelGrant{id: "nothing"}
	if k != nil && len(k.grants) > 0 && !g.oneIn(10, "no grant") {
		m = among(g, "grant", k.grants...)
	}
	what := k.against(true).when(k != nil && m.uid == 0, 3)
	a := ask{who: g.somebody(), route: control.RouteKeyGrantRevoke, name: ref, body: control.KeyGrantEnd{Grant: m.id}}.about(k)
	if g.oneIn(2, "retire") {
		if a.route = control.RouteKeyGrantRetire; m.uid != 0 && !g.oneIn(3, "of another") {
			a.who = m.uid
		}
		what = what.when(k != nil && m.uid != 0 && m.uid != a.who, 5)
	}
	if _, done := g.play(a, what); done {
		k.grants = slices.DeleteFunc(slices.Clone(k.grants), func(o modelGrant) bool { return o == m })
	}
}

// ofStore tells what is about no project.
func (g *game) ofStore(a ask) bool {
	return slices.Contains([]string{control.RouteRootLock, control.RouteRootUnlock, control.RouteClockAccept}, a.route)
}

// elsewhere makes the same call in a project that is not there: that it is not is told to those who could make it alone (rule A41).
func (g *game) elsewhere(a ask) {
	a.also, a.alsoRefused, a.uncounted = 0, 0, false
	code, _ := g.send(a.with(control.QueryProject+"=nowhere"), newRequest())
	want := 5
	if g.has(a.who, asAdmin) {
		want = 3
	}
	if code != want {
		g.failf("%s by %d in a project that is not there: %d, want %d", a.route, a.who, code, want)
	}
	g.audited(a, code, 0)
}

// list lists keys or disks as somebody: all of them to who has a role, else what is under keys that he has a grant of.
func (g *game) list(route string, ids map[string]*modelKey) {
	a := ask{who: g.somebody(), route: route}.about(g.live()...)
	answer, done := g.play(a, nil)
	if !done {
		return
	}
	right := takes[route]
	for _, x := range decode[[]struct{ ID string }](g, answer) {
		k, there := ids[x.ID]
		if !there || !g.has(a.who, right.roles...) && !k.grantedTo(a.who, right.grant) {
			g.failf("%d sees %s", a.who, x.ID)
		}
		delete(ids, x.ID)
	}
	for id, k := range ids {
		if g.has(a.who, right.roles...) || k.grantedTo(a.who, right.grant) {
			g.failf("%d does not see %s in %s", a.who, id, answer)
		}
	}
}

func (g *game) keyList() {
	ids := map[string]*modelKey{}
	for _, k := range g.live() {
		ids[k.id] = k
	}
	g.list(control.RouteKeyList, ids)
}

func (g *game) diskList() {
	ids := map[string]*modelKey{}
	for _, d := range g.disks {
		ids[d.id] = d.key
	}
	g.list(control.RouteDiskList, ids)
}
