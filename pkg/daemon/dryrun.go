package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// keyUses lists what is under a key (rule C7).
func (d *Daemon) keyUses(c *call) (any, error) {
	return d.usesOf(c.ctx, c.project, c.key())
}

func (d *Daemon) usesOf(ctx context.Context, project, key string) ([]control.KeyUse, error) {
	holders, err := d.keys.Uses(ctx, project, key)
	if err != nil {
		return nil, err
	}
	uses := make([]control.KeyUse, 0, len(holders))
	for len(holders) > 0 { // they come kind by kind
		kind, ids := holders[0].Kind, []string{}
		for len(holders) > 0 && holders[0].Kind == kind {
			ids, holders = append(ids, holders[0].ID), holders[1:]
		}
		named, err := d.volumes.Named(ctx, kind, ids)
		if err != nil {
			return nil, err
		}
		for _, n := range named {
			uses = append(uses, control.KeyUse{Kind: kind, ID: n.ID, Name: n.Name, Attached: n.Attached})
		}
	}
	k, err := d.keys.Key(ctx, project, key)
	if err != nil {
		return nil, err
	}
	configs, err := d.configUses(ctx, project, k.ID)
	return append(uses, configs...), err
}

// consequence is what a verb that makes a key unusable leads to.
type consequence struct {
	verb  keystore.Verb
	state keystore.State // zero where the key is gone then
	undo  string
}

// consequences are the verbs that --dry-run knows, by their words.
var consequences = map[string]consequence{
	"disable":           {keystore.Disable, keystore.Disabled, "nbdcrypt key enable"},
	"schedule-deletion": {keystore.ScheduleDeletion, keystore.PendingDeletion, "nbdcrypt key cancel-deletion"},
	"delete-material":   {keystore.DeleteMaterial, keystore.PendingImport, "nbdcrypt key import"},
	"delete":            {keystore.Delete, 0, ""},
}

// keyPredict tells what a verb would do, and refuses what the verb would be refused with.
func (d *Daemon) keyPredict(c *call) (any, error) {
	query := c.http.URL.Query()
	word := query.Get(control.QueryVerb)
	what, known := consequences[word]
	if !known {
		return nil, refusal.New(refusal.Usage, "ask for disable, schedule-deletion, delete or delete-material", "%.100q has no dry run", word)
	}
	p := control.Prediction{Verb: word}
	if what.verb == keystore.ScheduleDeletion {
		n, err := strconv.Atoi(query.Get(control.QueryDays))
		if err != nil {
			return nil, refusal.New(refusal.Usage, "give a number", "%.100q is no number of days", query.Get(control.QueryDays))
		}
		if err := keystore.CheckDeletionDays(n); err != nil {
			return nil, err
		}
		date := d.keys.DeletionDate(n)
		p.Date = &date
	}
	k, err := d.keys.May(c.ctx, c.project, c.http.PathValue("key"), what.verb)
	if err != nil {
		return nil, err
	}
	uses, err := d.usesOf(c.ctx, c.project, k.ID)
	if err != nil {
		return nil, err
	}
	p.Key, p.State, p.Undo = keyView(k), stateWord(keystore.Info{State: what.state}), what.undoes(k)
	p.Effects = effects(k, what, uses, d.clock.Now())
	return p, nil
}

// undoes is the command that undoes it, so that what is under the key works as before.
func (q consequence) undoes(k keystore.Info) string {
	if q.undo == "" || q.state == k.State {
		return ""
	}
	undo := q.undo + " " + k.Alias + " --project " + k.Project
	if q.verb == keystore.ScheduleDeletion && k.State == keystore.Enabled {
		undo += " --enable"
	}
	if q.verb == keystore.DeleteMaterial {
		undo += " --prepare DIR"
	}
	return undo
}

// effects tells for each use what becomes of it. One that could not be attached before either has no time from when.
func effects(k keystore.Info, what consequence, uses []control.KeyUse, now time.Time) []control.Effect {
	list := make([]control.Effect, len(uses))
	for i, u := range uses {
		e := control.Effect{Kind: u.Kind, ID: u.ID, Name: u.Name, Attached: u.Attached, IO: control.IONone, Attach: control.AttachRefused}
		if u.Attached {
			e.IO = control.IOUntilDetach
		}
		if what.state == 0 {
			e.Attach = control.AttachNever
		}
		if k.State == keystore.Enabled || what.state == 0 {
			e.From = &now
		}
		list[i] = e
	}
	return list
}

// stakes says in a question what is under a key.
func (d *Daemon) stakes(c *call, k keystore.Info) (string, error) {
	uses, err := d.usesOf(c.ctx, c.project, k.ID)
	if err != nil {
		return "", err
	}
	return under(uses), nil
}

// under counts the uses of a key.
func under(uses []control.KeyUse) string {
	counts, attached := map[string]int{}, 0
	for _, u := range uses {
		counts[u.Kind]++
		if u.Attached {
			attached++
		}
	}
	switch len(uses) {
	case 0:
		return "nothing is under it"
	case 1:
		return fmt.Sprintf("%s %s is under it%s", uses[0].Kind, uses[0].Name, map[bool]string{true: ", and attached"}[attached == 1])
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		s := map[bool]string{true: "s"}[counts[kind] != 1]
		text := fmt.Sprintf("%d %s%s", counts[kind], kind, s)
		if kind == volume.HolderKind {
			text += fmt.Sprintf(" (%d attached)", attached)
		}
		kinds = append(kinds, text)
	}
	return strings.Join(kinds, ", ") + " are under it"
}
