package keystore_test

import (
	"context"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// overtaken lets something happen after the catalog was looked at, and before what was seen there is used.
type overtaken struct {
	catalog.Store
	by func()
}

func (o *overtaken) View(ctx context.Context, fn func(catalog.Reader) error) error {
	return o.Store.View(ctx, func(r catalog.Reader) error {
		if by := o.by; by != nil {
			o.by = nil
			by()
		}
		return fn(r)
	})
}

// overtake makes l one whose looks at the catalog can be overtaken.
func (l *lab) overtake() (o *overtaken) {
	l.wrap = func(s catalog.Store) catalog.Store {
		o = &overtaken{s, nil}
		return o
	}
	l.reopen()
	return o
}

// Keys that change while a check runs are not damaged: who believed it would put a destroyed key back from a backup.
func TestCheckIsOvertaken(t *testing.T) {
	for name, c := range map[string]struct{ before, by string }{
		"material deleted":                    {"put", "drop"},
		"material imported":                   {"put drop", "put"},
		"material deleted and imported again": {"put", "drop put"},
		"key destroyed":                       {"doom", "destroy"},
		"key rotated and disk re-wrapped":     {"make", "rotate rewrap"},
		"keys made and renamed":               {"make", "rename other"},
	} {
		for _, look := range []string{"at CMKs", "at DEKs"} {
			t.Run(name+" after a look "+look, func(t *testing.T) {
				l := newLab(t)
				o := l.overtake()
				do := l.actions()
				each := func(words string) {
					for _, w := range strings.Fields(words) {
						do[w]()
					}
				}
				each(c.before)
				o.by = func() { each(c.by) }
				if look == "at DEKs" { // the second one of a check
					o.by = func() { o.by = func() { each(c.by) } }
				}
				for _, line := range l.problems() {
					if strings.HasPrefix(line, keystore.Damage) {
						t.Error(line)
					}
				}
				l.wantProblems()
			})
		}
	}
}

// actions are what may happen to a key with disk1 under it.
func (l *lab) actions() map[string]func() {
	l.grant("default")
	_, p := l.imported("theirs")
	wrapped := wrapMaterial(l.t, p.WrappingKey, theirBytes)
	return map[string]func(){
		"put": func() {
			_, err := l.importInto("theirs", p.Token, wrapped, nil)
			must(l.t, err)
			if l.uses("theirs") == "" {
				l.dek("default", "theirs", disk1, "l1")
			}
		},
		"drop": func() {
			_, err := l.DeleteMaterial(l.ctx(), l.request(), "default", "theirs")
			must(l.t, err)
		},
		"doom":    func() { l.doomed(7); l.clock.Advance(7 * oneDay) },
		"destroy": func() { must(l.t, l.delete()) },
		"make":    func() { l.create("default", "a"); l.dek("default", "a", disk1, "l1") },
		"rotate":  func() { l.rotate("a") },
		"other":   func() { l.create("default", "a") },
		"rename": func() {
			_, err := l.Update(l.ctx(), l.request(), "default", "a", keystore.Update{Alias: ptr("b")})
			must(l.t, err)
		},
		"rewrap": func() { must(l.t, l.commitRewrap(l.rewrap("a"))) },
	}
}

// Neither is a disk's key then.
func TestCheckOfADiskIsOvertaken(t *testing.T) {
	for name, c := range map[string]struct{ before, by string }{
		"material deleted": {"put", "drop"}, "material deleted and imported again": {"put", "drop put"}, "key destroyed": {"doom", "destroy"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			o := l.overtake()
			do := l.actions()
			do[c.before]()
			o.by = func() {
				for _, w := range strings.Fields(c.by) {
					do[w]()
				}
			}
			must(t, l.CheckDEK(l.ctx(), disk1, "l1"))
			must(t, l.CheckDEK(l.ctx(), disk1, "l1"))
		})
	}
}

// A key whose material goes between the look at its record and its use is refused as what it is then, and not called damaged.
func TestUseIsOvertaken(t *testing.T) {
	for name, use := range map[string]func(l *lab) error{
		"attach": func(l *lab) error { _, err := l.unwrap("default", disk1, "l1"); return err },
		"make a disk": func(l *lab) error {
			_, err := l.GenerateDEK(l.ctx(), "default", "theirs", disk1, "l2", 512)
			return err
		},
		"re-wrap from": func(l *lab) error { _, _, err := l.Rewrap(l.ctx(), "default", "", disk1, "l1"); return err },
		"re-wrap to": func(l *lab) error {
			l.dek("default", "", disk1, "l3")
			_, _, err := l.Rewrap(l.ctx(), "default", "theirs", disk1, "l3")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			o := l.overtake()
			do := l.actions()
			do["put"]()
			o.by = do["drop"]
			if name == "re-wrap to" {
				o.by = func() { o.by = do["drop"] } // the first look is for the disk
			}
			if r := wantCode(t, use(l), refusal.KeyForbids); !strings.Contains(r.Message, "Pending import") {
				t.Errorf("%q", r.Message)
			}
			do["put"]()
			o.by = func() { do["drop"](); do["put"]() }
			if name == "re-wrap to" {
				o.by = func() { o.by = func() { do["drop"](); do["put"]() } }
			}
			wantCode(t, use(l), refusal.Busy)
			must(t, use(l))
		})
	}
}
