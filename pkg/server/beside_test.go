package server_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A disk that is taken from a member while its group is deleted stays where that was answered well: what goes is what the member has then.
func TestADiskThatIsTakenFromAMemberStays(t *testing.T) {
	r := golden(t)
	taken := 0
	for i := range 60 {
		name := fmt.Sprintf("g%d", i)
		r.group(name, 1)
		disk := name + "-1-data-1"
		var wg sync.WaitGroup
		var detached, deleted error
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 2 * time.Microsecond) // each round begins it elsewhere in the other; nothing is waited for
			_, detached = r.DetachDisk(t.Context(), "take "+name, "default", name+"-1", disk)
		})
		wg.Go(func() { _, deleted = r.DeleteGroup(t.Context(), "delete "+name, "default", name, nil) })
		wg.Wait()
		_, err := r.volumes.Get(t.Context(), "default", disk)
		if detached == nil && err != nil {
			t.Fatalf("round %d: it was taken from the server, and is gone: %v", i, err)
		}
		if detached == nil {
			taken++
		}
		if deleted != nil {
			_, err := r.DeleteGroup(t.Context(), "delete again "+name, "default", name, nil)
			must(t, err)
		}
	}
	t.Logf("taken %d times", taken)
	r.whole()
}
