package keystore

import (
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// TestRuleB2_StatesAndVerbs is the table of what each state lets be done; each refusal has words of its own.
func TestRuleB2_StatesAndVerbs(t *testing.T) {
	at := time.Unix(1e9, 0)
	said := map[string]string{}
	for _, row := range []struct {
		verb Verb
		// y or n for: Enabled, Disabled, Pending deletion, Pending import, a default key, an imported key that is Enabled
		may string
	}{
		{Use, "ynnnyy"},
		{Enable, "yynnyy"},
		{Disable, "yynnny"},
		{ScheduleDeletion, "yynyny"},
		{CancelDeletion, "nnynnn"},
		{Delete, "nnynnn"},
		{Describe, "yynyyy"},
		{Rename, "yynyny"},
		{Rotate, "ynnnnn"},
		{SetRotation, "yynnnn"},
		{Import, "nnnyny"},
		{DeleteMaterial, "nnnnny"},
	} {
		for i, rec := range []cmkRecord{
			{State: Enabled, Origin: OriginGenerated}, {State: Disabled, Origin: OriginGenerated},
			{State: PendingDeletion, Origin: OriginGenerated, Deletion: &at}, {State: PendingImport, Origin: OriginImported},
			{State: Enabled, Origin: OriginGenerated, Default: true}, {State: Enabled, Origin: OriginImported},
		} {
			rec.Version, rec.Alias, rec.Project = recordVersion, "payroll", "shop"
			err := rec.may(row.verb)
			if (err == nil) != (row.may[i] == 'y') {
				t.Errorf("%s a key that is %v, %s, default %v: %v", verbs[row.verb].word, rec.State, rec.Origin, rec.Default, err)
			}
			if err == nil {
				continue
			}
			r := refusal.From(err)
			if r.Code != refusal.KeyForbids || r.Hint == "" || !strings.Contains(r.Message, "payroll") ||
				strings.Contains(r.Message+r.Hint, "KEY ") || strings.Contains(r.Message+r.Hint, "NAME") {
				t.Errorf("%s, %v: %+v", verbs[row.verb].word, rec.State, r)
			}
			place := verbs[row.verb].word
			if other, twice := said[r.Message]; twice && other != place {
				t.Errorf("%s and %s say both: %s", place, other, r.Message)
			}
			said[r.Message] = place
		}
		if gone := (cmkRecord{State: Deleting}); gone.may(row.verb) == nil {
			t.Errorf("%s a key that is Deleting", verbs[row.verb].word)
		}
	}
	if len(verbs) != 12 {
		t.Errorf("%d verbs in the table", len(verbs))
	}
}

// The words of the states are what records hold and `key show` prints.
func TestRuleB2_StatesAreWritten(t *testing.T) {
	for state, word := range map[State]string{Enabled: "Enabled", Disabled: "Disabled", PendingDeletion: "Pending deletion",
		PendingImport: "Pending import", Deleting: "Deleting"} {
		var again State
		text, err := state.MarshalText()
		if err != nil || string(text) != word || again.UnmarshalText(text) != nil || again != state {
			t.Errorf("%v is written %q, %v", state, text, err)
		}
	}
}
