package layer

import (
	"os"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// BenchmarkEntry is what one entry of a journal costs in the long run, with the room that it takes and gives back.
func BenchmarkEntry(b *testing.B) {
	p, err := pool.OpenFiles(b.TempDir())
	must(b, err)
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	js, err := OpenJournals(dir + "/journal/store")
	must(b, err)
	h := Header{ID: uuid.New(), SectorSize: 512}
	must(b, Create(b.Context(), p, h, 1<<20))
	j, err := js.beginJournal(p, journalHeader{Boot: js.Boot, layer: h.ID, Opening: uuid.New()}, false, func() {})
	must(b, err)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%(1<<18) == 0 {
			j.takeOff()
			must(b, j.landed())
		}
		if err := j.add(Change{int64(i), 1, Data}); err != nil {
			b.Fatal(err)
		}
	}
	j.close()
}
