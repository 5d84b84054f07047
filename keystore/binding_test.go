package keystore_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// value reads a record as JSON with its seal off.
func (l *lab) value(name string) (fields map[string]any) {
	l.t.Helper()
	must(l.t, l.sealed.View(l.ctx(), func(r catalog.Reader) error {
		b, err := r.Get(name)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &fields)
	}))
	return fields
}

// C3: a DEK's blob in the place of every other, each record saying that it belongs there: another holder, kind, layer, key or version.
func TestRuleC3_BlobsInEachOthersPlaces(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "a")
	l.create("default", "b")
	snapshot := keystore.Holder{Kind: "snapshot", ID: "d1"}
	list := []keystore.Record{l.dek("default", "a", disk1, "l1"), l.dek("default", "a", disk1, "l2"), l.dek("default", "a", snapshot, "l1"),
		l.dek("default", "a", keystore.Holder{Kind: "disk", ID: "d2"}, "l1"), l.dek("default", "b", keystore.Holder{Kind: "disk", ID: "d3"}, "l1")}
	l.rotate("a")
	list = append(list, l.dek("default", "a", keystore.Holder{Kind: "disk", ID: "d4"}, "l1"))
	for i, at := range list {
		for j, from := range list {
			moved := at
			moved.Blob = from.Blob
			l.put(moved)
			if _, err := l.unwrap("default", at.Holder, at.Layer); (refusal.CodeOf(err) == refusal.Damaged) != (i != j) {
				t.Errorf("blob %d in place %d: %v", j, i, err)
			}
			// Nor does it open under the key and version that it came from.
			moved.CMK, moved.CMKVersion = from.CMK, from.CMKVersion
			l.put(moved)
			if _, err := l.unwrap("default", at.Holder, at.Layer); (refusal.CodeOf(err) == refusal.Damaged) != (i != j) {
				t.Errorf("blob %d with its key in place %d: %v", j, i, err)
			}
		}
		l.put(at)
	}
	l.wantProblems()
}

// C3: the wrapped versions of a CMK in each other's places, or in another CMK's, and every field that they are bound to.
func TestRuleC3_WrappedVersionsOpenOnlyInTheirPlace(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.grant("b")
	a, other := l.create("default", "a"), l.create("default", "other")
	l.dek("default", "a", disk1, "l1")
	l.rotate("a")
	d2 := keystore.Holder{Kind: "disk", ID: "d2"}
	l.dek("default", "a", d2, "l1")
	name := "key/default/" + a.ID
	good, theirs := l.value(name), l.value("key/default/"+other.ID)
	versions := func(fields map[string]any) []any { return fields["versions"].([]any) }
	wrapped := func(v any) map[string]any { return v.(map[string]any) }
	for what, change := range map[string]func(map[string]any){
		"swapped": func(f map[string]any) {
			one, two := wrapped(versions(f)[0]), wrapped(versions(f)[1])
			one["wrapped"], two["wrapped"] = two["wrapped"], one["wrapped"]
		},
		"numbers swapped": func(f map[string]any) {
			one, two := wrapped(versions(f)[0]), wrapped(versions(f)[1])
			one["number"], two["number"] = two["number"], one["number"]
		},
		"another key's": func(f map[string]any) {
			for _, v := range versions(f) {
				wrapped(v)["wrapped"] = wrapped(versions(theirs)[0])["wrapped"]
			}
		},
		"another key's with its slot": func(f map[string]any) {
			f["slot"] = theirs["slot"]
			for _, v := range versions(f) {
				wrapped(v)["wrapped"] = wrapped(versions(theirs)[0])["wrapped"]
			}
		},
		"another slot":    func(f map[string]any) { f["slot"] = theirs["slot"] },
		"no such slot":    func(f map[string]any) { f["slot"] = 77 },
		"another region":  func(f map[string]any) { f["region"] = "there" },
		"another id":      func(f map[string]any) { f["id"] = other.ID },
		"another project": func(f map[string]any) { f["project"] = "b" },
		"the first twice": func(f map[string]any) { wrapped(versions(f)[1])["wrapped"] = wrapped(versions(f)[0])["wrapped"] },
	} {
		bad := l.value(name)
		change(bad)
		l.putAt(name, bad)
		_, first := l.unwrap("default", disk1, "l1")
		_, second := l.unwrap("default", d2, "l1")
		wantBoth := what != "the first twice"
		if wantBoth && refusal.CodeOf(first) != refusal.Damaged || refusal.CodeOf(second) != refusal.Damaged {
			t.Errorf("%s: %v; %v", what, first, second)
		}
		l.putAt(name, good)
	}
	for _, h := range []keystore.Holder{disk1, d2} {
		if _, err := l.unwrap("default", h, "l1"); err != nil {
			t.Errorf("positive control: %v", err)
		}
	}
	if fmt.Sprint(l.value(name)) != fmt.Sprint(good) {
		t.Error("the record is not as it was")
	}
}
