package daemon

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"nbdcrypt/pkg/control"
)

// loss is a verb that makes a key unusable, which can be tried out before.
type loss struct {
	word string
	ask  ask
	days int
	what against
	// change is what it does to the model.
	change func()
}

// lose plays such a verb, perhaps after a dry run of it: what that predicts is then held against what happens, and what it
// says that undoes it against what that does.
func (g *game) lose(l loss, k *modelKey) {
	was, predicted := modelKey{}, control.Prediction{}
	if k != nil {
		g.keepRecord(k)
		was = *k
	}
	tried := g.oneIn(2, "dry run")
	if tried {
		query := []string{control.QueryVerb + "=" + l.word}
		if l.days != 0 {
			query = append(query, fmt.Sprintf("%s=%d", control.QueryDays, l.days))
		}
		answer, done := g.play(ask{who: l.ask.who, route: control.RouteKeyPredict, name: l.ask.name}.about(k).with(query...), l.what)
		if tried = done; done {
			predicted = decode[control.Prediction](g, answer)
			l.ask.query = []string{yes}
		}
	}
	what := l.what
	if l.word != "disable" {
		what = what.when(len(l.ask.query) == 0, 9)
	}
	answer, done := g.play(l.ask, what)
	if done {
		l.change()
		if !k.gone {
			g.sameKey(decode[control.Key](g, answer), k)
		}
	}
	if tried != done && tried {
		g.failf("the dry run of %s went well, and the verb did not: %s", l.word, answer)
	}
	if tried {
		g.happened(predicted, &was, k)
	}
}

// happened holds a prediction against what became of the key and of what is under it.
func (g *game) happened(p control.Prediction, was, k *modelKey) {
	state := k.state
	if k.gone {
		state = "Deleted"
	}
	g.sameKey(p.Key, was)
	if p.State != state || !reflect.DeepEqual(p.Date, k.deletion) {
		g.failf("%s was to make the key %s until %v, and it is %s until %v", p.Verb, p.State, p.Date, state, k.deletion)
	}
	under := map[string]bool{}
	for _, d := range g.disks {
		if d.key == k {
			under[d.id] = d.attached
		}
	}
	for _, e := range p.Effects {
		attached, there := under[e.ID]
		io, attach := control.IONone, control.AttachRefused
		if attached {
			io = control.IOUntilDetach
		}
		if k.gone {
			attach = control.AttachNever
		}
		from := was.state == enabled || k.gone
		if !there || e.Attached != attached || e.IO != io || e.Attach != attach || (e.From != nil) != from {
			g.failf("%s was to do this: %s; the disk was attached: %v", p.Verb, mustJSON(e), attached)
		}
		delete(under, e.ID)
	}
	if len(under) > 0 {
		g.failf("%s said nothing of %d disks: %s", p.Verb, len(under), mustJSON(p))
	}
	g.undo(p, was, k)
}

// undo does what a prediction says that undoes the verb.
func (g *game) undo(p control.Prediction, was, k *modelKey) {
	words := strings.Fields(p.Undo)
	if len(words) == 0 {
		if !k.gone && was.state != k.state {
			g.failf("nothing undoes %s: %s", p.Verb, mustJSON(p))
		}
		return
	}
	if words[2] == "import" || !g.oneIn(2, "undo") {
		return
	}
	a := ask{route: control.RouteKeyEnable, name: words[3]}
	if words[2] == "cancel-deletion" {
		a.route, a.body = control.RouteKeyCancel, control.KeyCancel{Enable: strings.Contains(p.Undo, "--enable")}
	}
	answer, _ := g.play(a, nil)
	*k = *was
	g.sameKey(decode[control.Key](g, answer), k)
}

// used tells keys that can be made unusable, which disks are under.
func (g *game) used(k *modelKey) bool {
	return ofUser(enabled, disabled)(k) && slices.ContainsFunc(g.disks, func(d *modelDisk) bool { return d.key == k })
}

func (g *game) keyDisable() {
	ref, k := g.aKey(func(k *modelKey) bool { return k.state == enabled && g.used(k) })
	fits := k.in(enabled, disabled) && !k.isDefault // rule A7
	g.lose(loss{word: "disable", ask: ask{who: g.somebody(), route: control.RouteKeyDisable, name: ref}.about(k), what: k.against(fits),
		change: func() { k.state = disabled }}, k)
}

func (g *game) keySchedule() {
	ref, k := g.aKey(g.used)
	days := among(g, "days", 7, 7, 7, 8, 8, 20, 60, 1096, 6, 1097) // rule B1
	a, _ := g.perhapsSure(ask{who: g.somebody(), route: control.RouteKeySchedule, name: ref, body: control.KeySchedule{Days: days}}.about(k))
	fits := k.in(enabled, disabled, pendingImport) && !k.isDefault // rule A8
	g.lose(loss{word: "schedule-deletion", ask: a, days: days, what: k.against(fits).when(days < 7 || days > 1096, 2), change: func() {
		date := g.latest().Add(time.Duration(days) * day)
		k.state, k.deletion = pendingDeletion, &date
	}}, k)
}

// overdue tells keys whose date has come.
func (g *game) overdue(k *modelKey) bool {
	return k.in(pendingDeletion) && !k.deletion.After(g.latest())
}

// keyDelete destroys a key whose date has come, and that the daemon has not destroyed: mostly as it doubts the clock.
func (g *game) keyDelete() {
	ref, k := g.aKey(g.overdue)
	a, _ := g.perhapsSure(ask{who: g.somebody(), route: control.RouteKeyDelete, name: ref}.about(k))
	g.lose(loss{word: "delete", ask: a, what: k.against(k != nil && g.overdue(k)), change: func() { k.destroy() }}, k)
}

func (g *game) keyCancel() {
	ref, k := g.aKey(ofUser(pendingDeletion))
	enable := g.oneIn(2, "enable")
	g.keyVerb(control.RouteKeyCancel, control.KeyCancel{Enable: enable}, k, ref, k.against(k.in(pendingDeletion)), func() {
		k.deletion = nil
		switch {
		case k.versions == 0:
			k.state = pendingImport
		case enable:
			k.state = enabled
		default:
			k.state = disabled // choice D2
		}
	})
}

func (g *game) keyUpdate() {
	ref, k := g.aKey(anyKey)
	in := control.KeyUpdate{}
	what := k.against(!k.in(pendingDeletion))
	switch among(g, "what", "alias", "description", "tag", "untag") {
	case "alias":
		alias := g.anAlias()
		in.Alias = &alias
		other := g.byAlias(alias)
		what = what.when(alias == reserved, 2).when(k != nil && k.isDefault, 4).when(other != nil && other != k, 6)
	case "description":
		in.Description = new(among(g, "text", "", "for backups"))
	case "tag":
		in.Tags = map[string]string{among(g, "tag", "team", "cost"): among(g, "value", "red", "blue")}
	case "untag":
		in.Untag = []string{among(g, "tag", "team", "cost")}
		if k != nil {
			_, tagged := k.tags[in.Untag[0]]
			what = what.when(!tagged, 3)
		}
	}
	g.keyVerb(control.RouteKeyUpdate, in, k, ref, what, func() {
		if in.Alias != nil {
			k.alias = *in.Alias
		}
		if in.Description != nil {
			k.text = *in.Description
		}
		tags := map[string]string{}
		maps.Copy(tags, k.tags)
		maps.Copy(tags, in.Tags)
		for _, tag := range in.Untag {
			delete(tags, tag)
		}
		k.tags = tags
	})
}

func (g *game) keyUses() {
	ref, k := g.aKey(anyKey)
	answer, done := g.play(ask{who: g.somebody(), route: control.RouteKeyUses, name: ref}.about(k), k.against(true))
	if !done {
		return
	}
	want := map[control.KeyUse]bool{}
	for _, d := range g.disks {
		if d.key == k {
			want[control.KeyUse{Kind: "disk", ID: d.id, Name: d.name, Attached: d.attached}] = true
		}
	}
	have := map[control.KeyUse]bool{}
	for _, u := range decode[[]control.KeyUse](g, answer) {
		have[u] = true
	}
	if !maps.Equal(have, want) {
		g.failf("key %s is used by %s, want %v", k.alias, answer, want)
	}
}
