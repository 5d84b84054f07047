package layer

import (
	"sync"
	"testing"
)

// Records are found where they were put, also while the table grows under who looks.
func TestRecordTable(t *testing.T) {
	var table recordTable
	var wg sync.WaitGroup
	indices := []int64{5, 0, 127, 128, 1000, 100_000, 99_999, 16_912_008}
	records := map[int64]*record{}
	for _, index := range indices {
		records[index] = &record{}
	}
	table.put(5, records[5])
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if table.at(5) != records[5] {
					t.Error("a record is gone")
					return
				}
			}
		})
	}
	for _, index := range indices {
		if index != 5 && table.at(index) != nil {
			t.Errorf("record %d is there already", index)
		}
		table.put(index, records[index])
	}
	close(stop)
	wg.Wait()
	found := 0
	table.each(func(index int64, r *record) {
		if found++; records[index] != r {
			t.Errorf("record %d is another", index)
		}
	})
	if found != len(indices) || table.at(3) != nil || table.at(1<<40) != nil {
		t.Errorf("%d records of %d", found, len(indices))
	}
}

// What is blank stays so for everybody else when one map makes it other than that.
func TestBlankRecordsAreNotChanged(t *testing.T) {
	for range 2 {
		m := newBlockMap(testID, mapVolume(t, 1<<30))
		if state, n, err := m.run(7, 10, true); state != Absent || n != 10 || err != nil {
			t.Fatalf("a new map: %v for %d, %v", state, n, err)
		}
		if err := m.prepare(7, 1); err != nil {
			t.Fatal(err)
		}
		m.set(7, 1, Data)
		if state, n, err := m.run(7, 10, true); state != Data || n != 1 || err != nil {
			t.Errorf("after a change: %v for %d, %v", state, n, err)
		}
	}
	if *blank.cur != *uniform[Absent] || blank.reserved {
		t.Error("the blank record was changed")
	}
}
