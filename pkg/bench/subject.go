package bench

import (
	"crypto/rand"
	"unsafe"

	"nbdcrypt/pkg/secret"
	"nbdcrypt/xts"
)

// page is how the data is aligned, as what comes from files and sockets mostly is.
const page = 4096

// benchmark is why keys that nobody needs are in memory.
var benchmark = secret.Purpose{Kind: "benchmark", For: "this benchmark"}

// subject is what is measured: a cipher whose schedules lie where a disk's do, and data for it.
type subject struct {
	schedules *secret.Key
	cipher    *xts.Cipher
	data      []byte
}

func newSubject() (*subject, error) {
	key, err := secret.RandomWork(xts.KeySize, benchmark)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	schedules, err := secret.Work(xts.Size, benchmark)
	if err != nil {
		return nil, err
	}
	cipher, err := xts.New(schedules.Bytes(), key.Bytes())
	if err != nil {
		schedules.Destroy()
		return nil, err
	}
	data := aligned(largestRun)
	rand.Read(data) // never fails: it ends the process instead
	return &subject{schedules, cipher, data}, nil
}

func (s *subject) destroy() {
	s.cipher.Wipe()
	s.schedules.Destroy()
}

func (s *subject) tasks(impl xts.Implementation) (tasks []*rowTask) {
	for _, row := range rowsOf(impl.String()) {
		tasks = append(tasks, &rowTask{row: row, task: task{size: row.RunBytes, run: s.calls(impl, row)}})
	}
	return tasks
}

// calls makes whole calls in place, as the program does, each with the sectors behind those of the last.
func (s *subject) calls(impl xts.Implementation, row Row) func(n int) {
	c, data, sector, sectors := s.cipher, s.data[:row.RunBytes], row.SectorSize, uint64(row.RunBytes/512)
	if row.Op == encrypt {
		return func(n int) {
			for i := range n {
				impl.Encrypt(c, data, data, sector, uint64(i)*sectors)
			}
		}
	}
	return func(n int) {
		for i := range n {
			impl.Decrypt(c, data, data, sector, uint64(i)*sectors)
		}
	}
}

// aligned returns n bytes at the start of a page.
func aligned(n int) []byte {
	m := make([]byte, n+page-1)
	return m[-uintptr(unsafe.Pointer(&m[0]))&(page-1):][:n:n]
}
