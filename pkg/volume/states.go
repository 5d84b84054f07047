package volume

import (
	"slices"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// Status is what a disk is doing, in the words that users see (rule B10).
type Status string

// The statuses that a disk rests in. The catalog keeps Available alone of them: the others follow from it and from what this run does.
const (
	Available Status = "available"
	InUse     Status = "in-use"
	// Error: its making ended half-way. The others tell what else did.
	Error            Status = "error"
	ErrorDeleting    Status = "error_deleting"
	ErrorExtending   Status = "error_extending"
	ErrorRestoring   Status = "error_restoring"
	ErrorRollbacking Status = "error_rollbacking"
	// Damaged: its record can't be read.
	Damaged Status = "damaged"
)

// The statuses that last as long as the work. A record that has one after it was cut off half-way.
const (
	Creating        Status = "creating"
	Attaching       Status = "attaching"
	Detaching       Status = "detaching"
	Extending       Status = "extending"
	Deleting        Status = "deleting"
	Checking        Status = "checking"
	BackingUp       Status = "backing-up"
	RestoringBackup Status = "restoring-backup"
	Rollbacking     Status = "rollbacking"
	Uploading       Status = "uploading"   // to an image
	Downloading     Status = "downloading" // from an image, or out as ciphertext
)

// halfWay is what a disk is whose record or last work says that, and nobody works on it any more.
var halfWay = map[Status]Status{Creating: Error, Downloading: Error, Deleting: ErrorDeleting, Extending: ErrorExtending,
	RestoringBackup: ErrorRestoring, Rollbacking: ErrorRollbacking}

// verb is something that is done to a disk and that depends on its status.
type verb int

const (
	toCreate verb = iota + 1
	toRestore
	toDownload
	toAttach
	toDetach
	toSeize
	toExtend
	toDelete
	toCheck
	toExport
	toEscrow
	toRewrap
	toSnapshot
	toRollBack
	toRekey
	toBackUp
	toUpload
)

// verbRow is what a verb meets: where it is allowed, and what the disk is while it goes on.
type verbRow struct {
	word string // behind "can't be"
	// doing is empty where the disk stays what it was; then busy says what goes on.
	doing Status
	busy  string
	in    []Status
	// shared: of a shared disk also while it is in use (rule B14).
	shared bool
}

// sound are the statuses of a disk that is whole and not in use: an extension or a rollback that failed left it as it was.
var sound = []Status{Available, ErrorExtending, ErrorRollbacking}

// whole are those of a disk whose data is there.
var whole = append([]Status{InUse}, sound...)

// half are those of a disk of which only a part is there, so that it can only go.
var half = []Status{Error, ErrorDeleting, ErrorRestoring}

// verbs is the whole table of verbs and statuses (rule B10). What is not allowed is refused with exit code 6.
var verbs = map[verb]verbRow{
	// The record of a disk that is to be made says already what it is if that ends half-way.
	toCreate:   {word: "made", doing: Creating, in: half},
	toRestore:  {word: "restored", doing: RestoringBackup, in: half},
	toDownload: {word: "made from an image", doing: Downloading, in: half},
	toAttach:   {word: "attached", doing: Attaching, in: sound, shared: true},
	toDetach:   {word: "detached", doing: Detaching, in: []Status{InUse}},
	toSeize:    {word: "taken over", doing: Detaching, in: sound},
	toExtend:   {word: "extended", doing: Extending, in: whole},
	toDelete:   {word: "deleted", doing: Deleting, in: append(half, sound...)},
	toCheck:    {word: "checked", doing: Checking, in: append(half, whole...)},
	toExport:   {word: "exported", doing: Downloading, in: sound},
	toEscrow:   {word: "escrowed", in: whole}, // these two claim nothing: they only ask
	toRewrap:   {word: "re-wrapped", in: whole},
	toSnapshot: {word: "made a snapshot of", busy: "a snapshot of it is being made", in: whole},
	toRollBack: {word: "rolled back", doing: Rollbacking, in: sound},
	toRekey:    {word: "re-keyed", busy: "it gets a new key", in: whole},
	toBackUp:   {word: "backed up", doing: BackingUp, in: whole},
	toUpload:   {word: "made an image of", doing: Uploading, in: whole},
}

// against is what speaks against a verb for a disk that rests in a status, nil where nothing does.
func (v verb) against(d diskRecord, now Status) error {
	row := verbs[v]
	if slices.Contains(row.in, now) || now == InUse && row.shared && d.Shared {
		return nil
	}
	return refusal.New(refusal.Busy, fillIn(d, nextStep(v, now)), "disk %s is %s and can't be %s", d.Name, now, row.word)
}

// nextStep is the way out of a status, as a person types it. NAME and ID are filled in.
func nextStep(v verb, now Status) string {
	switch {
	case now == InUse && v == toAttach:
		return "run `nbdcrypt detach NAME` first, or use the attachment that `nbdcrypt disk show NAME` prints"
	case now == InUse:
		return "run `nbdcrypt detach NAME` first"
	case v == toDetach && slices.Contains(sound, now):
		return "run `nbdcrypt attach NAME` to attach it"
	case slices.Contains(half, now):
		return "run `nbdcrypt disk delete ID`; the daemon does so too when it starts"
	}
	return "wait until that is done, then try again"
}

func fillIn(d diskRecord, next string) string {
	return strings.NewReplacer("NAME", d.Name, "ID", d.ID.String()).Replace(next)
}

// meanwhile refuses everything while something else is done to a disk.
func (v verb) meanwhile(d diskRecord, doing verb) error {
	const wait = "wait until that is done, then try again"
	if row := verbs[doing]; row.doing == "" {
		return refusal.New(refusal.Busy, wait, "disk %s can't be %s: %s", d.Name, verbs[v].word, row.busy)
	}
	return refusal.New(refusal.Busy, wait, "disk %s is %s and can't be %s", d.Name, verbs[doing].doing, verbs[v].word)
}
