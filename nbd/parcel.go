package nbd

import (
	"sync"
	"time"
)

// epoch is what times are counted from: eight bytes, where time.Time has 24.
var epoch = time.Now()

// clock is read once for many requests: it costs as much as a tenth of a small one.
func clock() time.Duration { return time.Since(epoch) }

// account is what the counters are told of a request once its answer is with the socket.
type account struct {
	command uint16
	failed  bool
	bytes   uint64
	began   time.Duration
}

// maxAccounts is how many answers one parcel may end.
const maxAccounts = 64

// parcel is bytes on their way to the client: whole replies or chunks, so that what goes between two parcels never
// comes between a header and its data. memory and charge go back once it is sent.
type parcel struct {
	next     *parcel
	out      []byte // what is not sent yet
	memory   []byte // of the export's pool, where out is too long for small
	charge   int
	accounts [maxAccounts]account
	count    int
	small    [128]byte
}

var parcels = sync.Pool{New: func() any { return new(parcel) }}

func newParcel() *parcel { return parcels.Get().(*parcel) }

// dataParcel is data of the export's pool that follows a header in the parcel before.
func dataParcel(data []byte, charge int) *parcel {
	p := newParcel()
	p.out, p.memory, p.charge = data, data, charge
	return p
}

// note adds what the parcel answers; there must be room.
func (p *parcel) note(a account) {
	p.accounts[p.count] = a
	p.count++
}

// crowded tells that no more answers fit.
func (p *parcel) crowded() bool { return p.count >= maxAccounts-1 }
