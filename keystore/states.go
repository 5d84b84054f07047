package keystore

import (
	"fmt"
	"strings"
	"time"

	"nbdcrypt/pkg/refusal"
)

// Verb is something that is done to a CMK, or with it, and that depends on its state.
type Verb int

// The verbs of a CMK (rule B2). Showing it, its uses and its grants depends on no state.
const (
	// Use wraps and unwraps DEKs: making a disk, attaching it, re-wrapping it from or to the CMK.
	Use Verb = iota + 1
	Enable
	Disable
	ScheduleDeletion
	CancelDeletion
	Delete
	Describe
	Rename
	Rotate
	SetRotation
	Import
	DeleteMaterial
)

// answer is what a verb meets in a state: nothing that speaks against it, or a refusal.
type answer struct{ why, next string }

// verbRow is what a verb meets everywhere. ofDefault, ofGenerated and ofImported speak against it for such a CMK whatever its state.
type verbRow struct {
	word                                              string
	enabled, disabled, pendingDeletion, pendingImport answer
	ofDefault, ofGenerated, ofImported                answer
}

// The ways out of a state, as a person types them. KEY, PROJECT and DATE are filled in.
const (
	enableFirst = "run `nbdcrypt key enable KEY --project PROJECT`"
	cancelFirst = "run `nbdcrypt key cancel-deletion KEY --enable --project PROJECT`"
	importFirst = "import its key material: `nbdcrypt key import KEY --prepare DIR --project PROJECT` begins that"
	waitOrKeep  = "it is destroyed on DATE; `nbdcrypt key cancel-deletion KEY --project PROJECT` keeps it"
	ownKey      = "make a key of your own with `nbdcrypt key create`, which can be"
)

// verbs is the whole table of verbs and states (rule B2). Each cell that is not empty is a refusal with exit code 4.
var verbs = map[Verb]verbRow{
	Use: {
		word:            "use",
		disabled:        answer{"key NAME is Disabled", enableFirst},
		pendingDeletion: answer{"key NAME is Pending deletion: it is destroyed on DATE", cancelFirst},
		pendingImport:   answer{"key NAME is Pending import: it has no key material", importFirst},
	},
	Enable: {
		word:            "enable",
		pendingDeletion: answer{"key NAME can't be enabled while it is Pending deletion", cancelFirst},
		pendingImport:   answer{"key NAME can't be enabled while it is Pending import", importFirst},
	},
	Disable: {
		word:            "disable",
		pendingDeletion: answer{"key NAME can't be disabled while it is Pending deletion, in which it is not usable anyway", waitOrKeep},
		pendingImport:   answer{"key NAME can't be disabled while it is Pending import: there is no key material to keep from being used", importFirst},
		ofDefault:       answer{"NAME is a default key, which can't be disabled", ownKey},
	},
	ScheduleDeletion: {
		word:            "schedule-deletion",
		pendingDeletion: answer{"key NAME is Pending deletion already: it is destroyed on DATE", "for another date run `nbdcrypt key cancel-deletion KEY --project PROJECT` first"},
		ofDefault:       answer{"NAME is a default key, which can't be scheduled for deletion", ownKey},
	},
	CancelDeletion: {
		word:          "cancel-deletion",
		enabled:       answer{"the deletion of key NAME can't be cancelled: none is scheduled, it is Enabled", "there is nothing to do"},
		disabled:      answer{"the deletion of key NAME can't be cancelled: none is scheduled, it is Disabled", "`nbdcrypt key enable KEY --project PROJECT` makes it usable"},
		pendingImport: answer{"the deletion of key NAME can't be cancelled: none is scheduled, it is Pending import", importFirst},
	},
	Delete: {
		word:          "delete",
		enabled:       answer{"key NAME is Enabled, and only a key whose date of deletion has come can be deleted", scheduleFirst},
		disabled:      answer{"key NAME is Disabled, and only a key whose date of deletion has come can be deleted", scheduleFirst},
		pendingImport: answer{"key NAME is Pending import, and only a key whose date of deletion has come can be deleted", scheduleFirst},
		ofDefault:     answer{"NAME is a default key, which can't be deleted", ownKey},
	},
	Describe: {
		word:            "update",
		pendingDeletion: answer{"description and tags of key NAME can't be changed while it is Pending deletion", waitOrKeep},
	},
	Rename: {
		word:            "rename",
		pendingDeletion: answer{"key NAME can't be renamed while it is Pending deletion", waitOrKeep},
		ofDefault:       answer{"NAME is a default key, which can't be renamed", ownKey},
	},
	Rotate: {
		word:            "rotate",
		disabled:        answer{"key NAME can't be rotated while it is Disabled", enableFirst},
		pendingDeletion: answer{"key NAME can't be rotated while it is Pending deletion", cancelFirst},
		pendingImport:   answer{"key NAME can't be rotated while it is Pending import", importFirst},
		ofDefault:       answer{"NAME is a default key, which can't be rotated", ownKey},
		ofImported:      answer{"key NAME holds imported key material, which can't be rotated", rewrapInstead},
	},
	SetRotation: {
		word:            "rotation",
		pendingDeletion: answer{"the rotation of key NAME can't be set while it is Pending deletion", cancelFirst},
		pendingImport:   answer{"the rotation of key NAME can't be set while it is Pending import", importFirst},
		ofDefault:       answer{"NAME is a default key, whose rotation can't be set", ownKey},
		ofImported:      answer{"key NAME holds imported key material, so its rotation can't be set", rewrapInstead},
	},
	Import: {
		word:            "import",
		pendingDeletion: answer{"no key material can be imported into key NAME while it is Pending deletion", "`nbdcrypt key cancel-deletion KEY --project PROJECT` first"},
		ofDefault:       answer{"NAME is a default key, into which no key material can be imported", importedKey},
		ofGenerated:     answer{"no key material can be imported into key NAME: its own was made here", importedKey},
	},
	DeleteMaterial: {
		word:            "delete-material",
		pendingDeletion: answer{"the key material of key NAME can't be deleted while it is Pending deletion", waitOrKeep},
		pendingImport:   answer{"key NAME is Pending import: it has no key material to delete", importFirst},
		ofDefault:       answer{"NAME is a default key, whose key material can't be deleted", ownKey},
		ofGenerated:     answer{"the key material of key NAME was made here, and can't be deleted without the key", scheduleFirst},
	},
}

const (
	scheduleFirst = "`nbdcrypt key schedule-deletion KEY --days N --project PROJECT` sets a date"
	rewrapInstead = "make another key, and put what is under this one under it with `nbdcrypt key rewrap KEY --to OTHER --project PROJECT`"
	importedKey   = "make a key for it with `nbdcrypt key create ALIAS --origin imported`"
)

// gone is what every verb meets where there is no CMK any more.
var gone = answer{"key NAME is deleted", "nothing opens what is under it any more; it can be deleted"}

// against is what speaks against the verb for a CMK; nothing where it may be done.
func (v verbRow) against(i Info) answer {
	switch {
	case i.Default && v.ofDefault != answer{}:
		return v.ofDefault
	case i.Origin == OriginGenerated && v.ofGenerated != answer{}:
		return v.ofGenerated
	case i.Origin == OriginImported && v.ofImported != answer{}:
		return v.ofImported
	}
	switch i.State {
	case Enabled:
		return v.enabled
	case Disabled:
		return v.disabled
	case PendingDeletion:
		return v.pendingDeletion
	case PendingImport:
		return v.pendingImport
	}
	return gone
}

// May refuses a verb that the CMK's state or kind forbids (rules A7, A8, A15, A16, A18, B2, C13). An Info without a state is that of
// a CMK that is deleted.
func (i Info) May(v Verb) error {
	if i.Unreadable {
		return refusal.New(refusal.Damaged, "`nbdcrypt check` tells more; restore the state directory from a backup", "the record of key %s is damaged", i.name())
	}
	a := verbs[v].against(i)
	if a == (answer{}) {
		return nil
	}
	fill := strings.NewReplacer("KEY", i.Alias, "NAME", i.name(), "PROJECT", i.Project, "DATE", date(i.Deletion))
	return refusal.New(refusal.KeyForbids, fill.Replace(a.next), "%s", fill.Replace(a.why))
}

func (c cmkRecord) may(v Verb) error { return c.info().May(v) }

// name is how a refusal calls the key.
func (i Info) name() string {
	if i.Alias == "" {
		return i.ID
	}
	return fmt.Sprintf("%s (%s)", i.Alias, i.ID)
}

// date is how messages write when a CMK is destroyed.
func date(t *time.Time) string {
	if t == nil {
		return "no date"
	}
	return t.UTC().Format(time.RFC3339)
}
