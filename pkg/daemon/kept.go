package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"nbdcrypt/pkg/audit"
)

// maxKept is how many records are kept for a log that is not open yet, and maxKeptStrangers how many of them are of users who
// may ask nothing then: they must not keep what others do out of the log. Nor must calls that found the door shut, of which some more are kept.
const (
	maxKept          = 100
	maxKeptStrangers = 50
	maxKeptShut      = 50
)

// kept are the records of what was asked of the root key before it was open: the log can only be proven, and so only be
// written, together with the catalog, which lies under that key.
type kept struct {
	mu        sync.Mutex
	records   []audit.Record
	strangers int
	shut      int
	dropped   int
	ended     bool
}

// keep takes a record; false tells that the log is open. Shut tells that the call is one that nothing was looked at for.
func (k *kept) keep(rec audit.Record, stranger, shut bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended:
		return false
	case shut && k.shut == maxKeptShut, !shut && len(k.records)-k.shut == maxKept, !shut && stranger && k.strangers == maxKeptStrangers:
		k.dropped++
	default:
		switch {
		case shut:
			k.shut++
		case stranger:
			k.strangers++
		}
		when := fmt.Sprintf("at %s, before the log was open", time.Now().UTC().Format(time.RFC3339))
		if rec.Message != "" {
			when += ": " + rec.Message
		}
		rec.Message = when
		k.records = append(k.records, rec)
	}
	return true
}

// end gives the records out, for the log that is open from now on.
func (k *kept) end() (records []audit.Record, dropped int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	return k.records, k.dropped
}

// recordKept writes what was kept into the log.
func (d *Daemon) recordKept(ctx context.Context) {
	records, dropped := d.kept.end()
	if dropped > 0 {
		rec := d.ownRecord("daemon.locked")
		rec.Message = fmt.Sprintf("%d further calls before the log was open are not in it", dropped)
		records = append(records, rec)
	}
	for _, rec := range records {
		if err := d.write(ctx, rec); err != nil {
			d.cantRecord(rec, err)
		}
	}
}
