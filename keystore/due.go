package keystore

import (
	"slices"
	"sync"
	"time"
)

// DueKind is something that happens to a CMK on its own once its time has come.
type DueKind int

// What becomes due.
const (
	// DueDeletion is a CMK whose date of deletion comes.
	DueDeletion DueKind = iota + 1
	// DueErase is a CMK that is Deleting: what an error or a crash interrupted is to be finished, whatever time it is.
	DueErase
	// DueExpiry is imported key material that expires.
	DueExpiry
	// DueRotation is a new version of an Enabled CMK.
	DueRotation
)

// Due is one of these, and when.
type Due struct {
	Kind               DueKind
	Project, ID, Alias string
	At                 time.Time
}

// dates is what lies before a CMK.
func (c cmkRecord) dates() (list []Due) {
	add := func(kind DueKind, at time.Time) {
		list = append(list, Due{kind, c.Project, c.ID.String(), c.Alias, at})
	}
	if c.State == Deleting {
		add(DueErase, time.Time{})
		return list
	}
	if c.Deletion != nil {
		add(DueDeletion, *c.Deletion)
	}
	if c.erasing() {
		add(DueExpiry, time.Time{}) // what was interrupted is to be finished
	} else if c.Import != nil && c.Import.Expires != nil && len(c.Versions) > 0 {
		add(DueExpiry, *c.Import.Expires)
	}
	if c.RotationDays > 0 && c.RotationFrom != nil && c.State == Enabled && len(c.Versions) < MaxVersions {
		add(DueRotation, c.RotationFrom.AddDate(0, 0, c.RotationDays))
	}
	return list
}

// calendar holds the dates of all CMKs that have any, so that looking for what is due reads no catalog.
type calendar struct {
	mu    sync.Mutex
	dates map[string][]Due // by the name of the CMK's record
}

// note takes over what a record that was just committed says.
func (c *calendar) note(rec cmkRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dates == nil {
		c.dates = map[string][]Due{}
	}
	if list := rec.dates(); len(list) > 0 {
		c.dates[rec.key()] = list
		return
	}
	delete(c.dates, rec.key())
}

// forget drops a CMK that is gone.
func (c *calendar) forget(rec cmkRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.dates, rec.key())
}

// Due lists what is due until then, in all projects and regions, the oldest first.
func (s *Store) Due(until time.Time) (list []Due) {
	s.due.mu.Lock()
	defer s.due.mu.Unlock()
	for _, dates := range s.due.dates {
		for _, d := range dates {
			if !d.At.After(until) {
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, func(a, b Due) int { return a.At.Compare(b.At) })
	return list
}

// Begun tells what only finishes something: it waits for nothing.
func (d Due) Begun() bool { return d.At.IsZero() }
