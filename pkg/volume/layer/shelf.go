package layer

import "sync/atomic"

// blank stands for every record that was read and is blank. It never changes: what becomes other than blank gets a record of
// its own.
var blank = &record{cur: uniform[Absent], durable: uniform[Absent]}

// shelfRecords is how many records lie on one shelf, 8 bytes each.
const shelfRecords = 128

type shelf [shelfRecords]atomic.Pointer[record]

// recordTable is the records that are in memory, by number: whoever looks for one needs no lock, whoever puts one there has
// the map's.
type recordTable struct {
	shelves atomic.Pointer[[]atomic.Pointer[shelf]]
}

// at is a record, or nil where it is not in memory.
func (t *recordTable) at(index int64) *record {
	shelves := t.shelves.Load()
	if shelves == nil || index/shelfRecords >= int64(len(*shelves)) {
		return nil
	}
	s := (*shelves)[index/shelfRecords].Load()
	if s == nil {
		return nil
	}
	return s[index%shelfRecords].Load()
}

func (t *recordTable) put(index int64, r *record) {
	place := index / shelfRecords
	shelves := t.shelves.Load()
	if shelves == nil || place >= int64(len(*shelves)) {
		shelves = t.grow(place + 1)
	}
	s := (*shelves)[place].Load()
	if s == nil {
		s = new(shelf)
		(*shelves)[place].Store(s)
	}
	s[index%shelfRecords].Store(r)
}

// grow makes room for n shelves at least. Who looks in the old place meanwhile finds what was there.
func (t *recordTable) grow(n int64) *[]atomic.Pointer[shelf] {
	old := t.shelves.Load()
	if old == nil {
		old = new([]atomic.Pointer[shelf])
	}
	shelves := make([]atomic.Pointer[shelf], max(n, 2*int64(len(*old))))
	for i := range *old {
		shelves[i].Store((*old)[i].Load())
	}
	t.shelves.Store(&shelves)
	return &shelves
}

// each calls do with every record that is in memory.
func (t *recordTable) each(do func(index int64, r *record)) {
	shelves := t.shelves.Load()
	if shelves == nil {
		return
	}
	for i := range *shelves {
		s := (*shelves)[i].Load()
		for k := 0; s != nil && k < shelfRecords; k++ {
			if r := s[k].Load(); r != nil {
				do(int64(i)*shelfRecords+int64(k), r)
			}
		}
	}
}
