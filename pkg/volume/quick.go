package volume

import (
	"bytes"
	"strconv"

	"github.com/google/uuid"
)

// A list of very many disks takes most of its time for reading JSON strictly. quick reads a record as put writes one, and nothing
// else: where a byte is not as expected parseDisk reads it with encoding/json, and has the word on what is damaged.
type quick struct {
	b   []byte
	bad bool
}

// quickDisk reads a disk's record; not ok tells nothing.
func quickDisk(b []byte) (d diskRecord, ok bool) {
	q := &quick{b: b}
	d.Version = int(q.number(`{"v":`))
	d.ID = q.id(`,"id":"`)
	d.Name = q.text(`,"name":"`)
	d.Project = q.text(`,"project":"`)
	d.Size = q.number(`,"size":`)
	d.SectorSize = int(q.number(`,"sector_size":`))
	d.Encrypted = q.has(`,"encrypted":true`)
	if !d.Encrypted {
		q.skip(`,"encrypted":false`)
	}
	if bytes.HasPrefix(q.b, []byte(`,"key":`)) {
		d.Key = q.text(`,"key":"`)
	}
	d.Status = Status(q.text(`,"status":"`))
	d.Top = q.id(`,"top":"`)
	d.Epoch = uint64(q.number(`,"epoch":`))
	if created := q.text(`,"created":"`); !q.bad {
		q.bad = d.Created.UnmarshalText([]byte(created)) != nil
	}
	d.HideHoles = q.has(`,"hide_holes":true`)
	d.Bootable = q.has(`,"bootable":true`)
	d.Request = q.text(`,"request":"`)
	q.skip("}")
	return d, !q.bad && len(q.b) == 0 && d.Version == recordVersion
}

func (q *quick) has(s string) bool {
	if !bytes.HasPrefix(q.b, []byte(s)) {
		return false
	}
	q.b = q.b[len(s):]
	return true
}

func (q *quick) skip(s string) {
	if !q.has(s) {
		q.bad = true
	}
}

// text reads plain text behind what is before it, with the quotation mark that ends it.
func (q *quick) text(before string) string {
	q.skip(before)
	n := bytes.IndexByte(q.b, '"')
	if q.bad || n < 0 {
		q.bad = true
		return ""
	}
	for _, c := range q.b[:n] {
		q.bad = q.bad || c < ' ' || c > '~' || c == '\\'
	}
	s := string(q.b[:n])
	q.b = q.b[n+1:]
	return s
}

// number reads a number without sign that fits.
func (q *quick) number(before string) int64 {
	q.skip(before)
	n := 0
	for n < len(q.b) && '0' <= q.b[n] && q.b[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(string(q.b[:n]), 10, 64)
	q.bad = q.bad || err != nil || n > 1 && q.b[0] == '0'
	q.b = q.b[n:]
	return v
}

func (q *quick) id(before string) uuid.UUID {
	s := q.text(before)
	id, err := uuid.Parse(s)
	q.bad = q.bad || err != nil || len(s) != 36
	return id
}
