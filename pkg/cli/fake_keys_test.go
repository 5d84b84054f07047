package cli

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// keyRoutes answers what is done to a key in its life.
func (f *fake) keyRoutes(handle func(route string, fn func(r *http.Request) (any, error))) {
	handle(control.RouteKeyUpdate, f.keyUpdate)
	handle(control.RouteKeySchedule, f.keySchedule)
	handle(control.RouteKeyCancel, f.keyCancel)
	handle(control.RouteKeyDelete, f.keyDelete)
	handle(control.RouteKeyUses, f.keyUses)
	handle(control.RouteKeyPredict, f.keyPredict)
	handle(control.RouteClockShow, func(*http.Request) (any, error) { return f.clock, nil })
	handle(control.RouteClockAccept, f.clockAccept)
}

func (f *fake) keyUpdate(r *http.Request) (any, error) {
	var ask control.KeyUpdate
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	if ask.Alias != nil {
		k.Alias = *ask.Alias
	}
	if ask.Description != nil {
		k.Description = *ask.Description
	}
	for name, value := range ask.Tags {
		k.Tags[name] = value
	}
	for _, name := range ask.Untag {
		delete(k.Tags, name)
	}
	return k, nil
}

func (f *fake) keySchedule(r *http.Request) (any, error) {
	var ask control.KeySchedule
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "key %s is destroyed", r.PathValue("key"))
	}
	k, err := f.setKey(r, "Pending deletion")
	if err != nil {
		return nil, err
	}
	date := moment0().AddDate(0, 0, ask.Days)
	k.(*control.Key).DeletionDate = &date
	return k, nil
}

func (f *fake) keyCancel(r *http.Request) (any, error) {
	var ask control.KeyCancel
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	k, err := f.setKey(r, map[bool]string{false: "Disabled", true: "Enabled"}[ask.Enable])
	if err != nil {
		return nil, err
	}
	k.(*control.Key).DeletionDate = nil
	return k, nil
}

func (f *fake) keyDelete(r *http.Request) (any, error) {
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "key %s is destroyed", k.Alias)
	}
	f.keys = slices.DeleteFunc(f.keys, func(o *control.Key) bool { return o == k })
	return struct{}{}, nil
}

func (f *fake) keyUses(r *http.Request) (any, error) {
	k, err := f.key(r.PathValue("key"))
	uses := []control.KeyUse{}
	for _, d := range f.disks {
		if err == nil && d.Key != nil && d.Key.ID == k.ID {
			uses = append(uses, control.KeyUse{Kind: "disk", ID: d.ID, Name: d.Name, Attached: len(d.Attachments) > 0})
		}
	}
	return uses, err
}

func (f *fake) keyPredict(r *http.Request) (any, error) {
	k, err := f.key(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	p := control.Prediction{Verb: r.URL.Query().Get(control.QueryVerb), Key: *k, State: "Disabled", Undo: "nbdcrypt key enable " + k.Alias}
	if days, err := strconv.Atoi(r.URL.Query().Get(control.QueryDays)); err == nil {
		date := moment0().AddDate(0, 0, days)
		p.State, p.Date = "Pending deletion", &date
	}
	uses, err := f.keyUses(r)
	now := moment0()
	for i, u := range uses.([]control.KeyUse) {
		e := control.Effect{Kind: u.Kind, ID: u.ID, Name: u.Name, Attached: u.Attached, IO: control.IONone, Attach: control.AttachRefused, From: &now}
		if u.Attached {
			e.IO = control.IOUntilDetach
		}
		if i > 0 {
			e.Attach, e.From = control.AttachNever, nil
		}
		p.Effects = append(p.Effects, e)
	}
	return p, err
}

func (f *fake) clockAccept(r *http.Request) (any, error) {
	if f.clock.State == control.ClockAhead && r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "set the clock right if it is wrong; else repeat it with --yes", "the clock is taken for right")
	}
	f.clock.State, f.clock.By, f.clock.Due = control.ClockRight, 0, nil
	return f.clock, nil
}

// clock0 is a clock that is 45 days ahead.
func clock0() control.Clock {
	seen, due := moment0(), moment0().Add(8*24*time.Hour)
	now := seen.Add(45 * 24 * time.Hour)
	return control.Clock{Now: now, Seen: &seen, Latest: now, State: control.ClockAhead, By: 45 * 24 * 3600,
		Due: []control.Key{{Alias: "old", Project: "default", State: "Pending deletion", DeletionDate: &due, Created: seen}}}
}

// tagsOf are tags as the daemon shows them: an object in any case.
func tagsOf(tags map[string]string) map[string]string {
	if tags == nil {
		return map[string]string{}
	}
	return tags
}
