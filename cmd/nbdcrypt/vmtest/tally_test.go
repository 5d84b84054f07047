//go:build vm

package vmtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// row is what the table says of one kind of thing that went wrong.
type row struct {
	what           string
	times          int
	verified, lost int64
}

var tallied struct {
	sync.Mutex
	rows []*row
}

// tally counts that something went wrong n times, how much was verified after it, and how much of it was lost: which fails the test.
func tally(t *testing.T, what string, n int, bytesVerified, bytesLost int64) {
	t.Helper()
	if bytesLost != 0 {
		t.Errorf("%s: %d bytes were lost", what, bytesLost)
	}
	tallied.Lock()
	defer tallied.Unlock()
	i := slices.IndexFunc(tallied.rows, func(r *row) bool { return r.what == what })
	if i < 0 {
		i = len(tallied.rows)
		tallied.rows = append(tallied.rows, &row{what: what})
	}
	r := tallied.rows[i]
	r.times, r.verified, r.lost = r.times+n, r.verified+bytesVerified, r.lost+bytesLost
}

// table is what was tallied, as text.
func table() string {
	tallied.Lock()
	defer tallied.Unlock()
	if len(tallied.rows) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-50s %8s %16s %12s\n", "what", "times", "bytes verified", "bytes lost")
	for _, r := range tallied.rows {
		fmt.Fprintf(&b, "%-50s %8d %16d %12d\n", r.what, r.times, r.verified, r.lost)
	}
	return b.String()
}
