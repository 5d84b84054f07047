package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume"
)

// recordVersion is the version of every record of this package.
const recordVersion = 1

// head is what all records here begin with.
type head struct {
	Version int       `json:"v"`
	ID      uuid.UUID `json:"id"`
	Name    string    `json:"name"`
	Project string    `json:"project"`
	Status  Status    `json:"status"`
	Created time.Time `json:"created"`
	// Request made it; the same request again finds it made.
	Request string `json:"request"`
}

func (h head) common() head { return h }

// machine is what a server has beside disks.
type machine struct {
	CPUs    int    `json:"cpus"`
	Memory  int64  `json:"memory"`
	Network string `json:"network"`
}

// serverRecord is a server in the catalog, at server/ID.
type serverRecord struct {
	head
	machine
	// Disks are those that it has; while it is being made, those that it is to have. The system disk is the first.
	Disks []serverDisk   `json:"disks"`
	Image *volume.Source `json:"image,omitempty"`
	// Group is the scaling group that it is a member of, under Number.
	Group  uuid.UUID `json:"group,omitzero"`
	Number int       `json:"number,omitempty"`
}

// serverDisk is a disk of a server. One that a member was Given outlives it: the group did not make it.
type serverDisk struct {
	Role  string    `json:"role"`
	ID    uuid.UUID `json:"id"`
	Name  string    `json:"name"`
	Given bool      `json:"given,omitempty"`
}

// configRecord is a scaling configuration in the catalog, at scaling-config/ID. Its system disks stand on the image, whose sector size, attribute and key they have.
type configRecord struct {
	head
	machine
	Image     uuid.UUID `json:"image"`
	ImageName string    `json:"image_name"`
	// Owned tells that the image was made for the configuration, and goes with it.
	Owned  bool           `json:"owned,omitempty"`
	Source *volume.Source `json:"source,omitempty"`
	// SystemSize is the size of system disks.
	SystemSize int64        `json:"system_size"`
	Data       []configDisk `json:"data,omitempty"`
}

// configDisk is a data disk of the servers of a configuration, with its key's id.
type configDisk struct {
	Size       int64  `json:"size"`
	SectorSize int    `json:"sector_size"`
	Encrypted  bool   `json:"encrypted"`
	Key        string `json:"key,omitempty"`
}

// groupRecord is a scaling group in the catalog, at scaling-group/ID.
type groupRecord struct {
	head
	Config uuid.UUID `json:"config"`
	Min    int       `json:"min"`
	Max    int       `json:"max"`
	// Next is the number of the next member. None is used twice while the group lives.
	Next int `json:"next"`
	// Scaling is what goes on. Cut off, the members that it names go, whether they were made or were leaving.
	Scaling *scaling `json:"scaling,omitempty"`
	// Last is the scaling that was done last; the same request again finds it done.
	Last *scaling `json:"last,omitempty"`
}

// scaling is members that come or go.
type scaling struct {
	Request string `json:"request"`
	Grows   bool   `json:"grows,omitempty"`
	Members []int  `json:"members"`
}

// recorded is a record of this package.
type recorded interface {
	common() head
	// wrong says what can't be in such a record, empty for nothing.
	wrong() string
}

// kind is servers, configurations or groups.
type kind[T recorded] struct{ prefix, word, list string }

var (
	servers = kind[serverRecord]{"server", "server", "server list"}
	configs = kind[configRecord]{"scaling-config", "scaling configuration", "scaling config list"}
	groups  = kind[groupRecord]{"scaling-group", "scaling group", "scaling group list"}
)

func (k kind[T]) key(id uuid.UUID) string { return k.prefix + "/" + id.String() }
func (k kind[T]) nameKey(project, name string) string {
	return k.prefix + "-name/" + project + "/" + name
}

// Indexes. What names a disk or an image here keeps it from being deleted.
func diskKey(disk uuid.UUID) string                 { return "disk-server/" + disk.String() }
func imageKey(image uuid.UUID) string               { return "image-config/" + image.String() + "/" }
func imageConfigKey(image, config uuid.UUID) string { return imageKey(image) + config.String() }
func groupsOf(config uuid.UUID) string              { return "config-group/" + config.String() + "/" }
func configGroupKey(config, group uuid.UUID) string { return groupsOf(config) + group.String() }
func membersOf(group uuid.UUID) string              { return "scaling-member/" + group.String() + "/" }
func memberKey(group uuid.UUID, number int) string {
	return fmt.Sprintf("%s%08d", membersOf(group), number)
}

// parse reads a record strictly: an unknown version or field is refused, and what can't be.
func (k kind[T]) parse(key string, b []byte) (T, error) {
	var v T
	err := catalog.DecodeStrict(b, &v)
	h := v.common()
	switch {
	case err != nil:
	case h.Version != recordVersion:
		err = fmt.Errorf("version %d; this build reads version %d", h.Version, recordVersion)
	case k.key(h.ID) != key:
		err = fmt.Errorf("it is %s %s", k.word, h.ID)
	case v.wrong() != "":
		err = errors.New(v.wrong())
	}
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, key, err)
	}
	return v, nil
}

// get reads a record by its id; an absent one is catalog.ErrNotFound.
func (k kind[T]) get(r catalog.Reader, id uuid.UUID) (T, error) {
	b, err := r.Get(k.key(id))
	if err != nil {
		var none T
		return none, err
	}
	return k.parse(k.key(id), b)
}

func (k kind[T]) put(t catalog.Txn, v T) error {
	key := k.key(v.common().ID)
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("server: record %q: %w", key, err)
	}
	return t.Put(key, b)
}

// add puts a record that is new, and its name.
func (k kind[T]) add(t catalog.Txn, v T) error {
	h := v.common()
	return errors.Join(k.put(t, v), t.Put(k.nameKey(h.Project, h.Name), []byte(h.ID.String())))
}

// drop takes a record away with its name, unless another has that.
func (k kind[T]) drop(t catalog.Txn, h head) error {
	id, err := t.Get(k.nameKey(h.Project, h.Name))
	if err == nil && string(id) == h.ID.String() {
		err = t.Delete(k.nameKey(h.Project, h.Name))
	}
	return errors.Join(ifThere(err), t.Delete(k.key(h.ID)))
}

func (m machine) wrong() string {
	if m.CPUs < 1 || m.CPUs > MaxCPUs || m.Memory < MinMemory || m.Network != NetworkUser && m.Network != NetworkNone {
		return "no machine is like that"
	}
	return ""
}

func (h head) wrongStatus(rests Status) string {
	if h.Status != Creating && h.Status != Deleting && h.Status != rests {
		return fmt.Sprintf("its status is %q", h.Status)
	}
	return ""
}

func (r serverRecord) wrong() string {
	if r.Number < 0 || (r.Group == uuid.Nil) != (r.Number == 0) {
		return "it is a member without a group, or without a number"
	}
	data := 0
	for i, d := range r.Disks {
		if d.Role == DataRole {
			data++
		} else if d.Role != SystemRole || i > 0 {
			return "its disks are not a system disk and data disks"
		}
		if slices.ContainsFunc(r.Disks[:i], func(o serverDisk) bool { return o.ID == d.ID }) {
			return "it has a disk twice"
		}
	}
	if data > MaxDataDisks {
		return "it has too many disks"
	}
	return r.machine.wrong() + r.wrongStatus(Stopped)
}

func (r configRecord) wrong() string {
	if len(r.Data) > MaxDataDisks || r.SystemSize <= 0 {
		return "no server has such disks"
	}
	for _, d := range r.Data {
		if d.Encrypted != (d.Key != "") {
			return "a disk is plain with a key, or encrypted without"
		}
	}
	return r.machine.wrong() + r.wrongStatus(Available)
}

func (r groupRecord) wrong() string {
	if r.Min < 0 || r.Max < max(1, r.Min) || r.Max > MaxMembers || r.Next < 1 {
		return "no group has such numbers"
	}
	for _, s := range []*scaling{r.Scaling, r.Last} {
		if s != nil && (len(s.Members) > MaxMembers || slices.ContainsFunc(s.Members, func(n int) bool { return n < 1 || n >= r.Next })) {
			return "it scales members that it never had"
		}
	}
	return r.wrongStatus(Available)
}

// system is the server's system disk, nil where it has none.
func (r serverRecord) system() *serverDisk {
	if len(r.Disks) > 0 && r.Disks[0].Role == SystemRole {
		return &r.Disks[0]
	}
	return nil
}

func ifThere(err error) error {
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	return err
}
