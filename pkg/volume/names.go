package volume

import (
	"regexp"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// nameRule keeps names fit for export names, URIs, shells and file names.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// CheckName refuses what can't be a disk's name. A UUID can't, since names work wherever ids do.
func CheckName(name string) error { return checkNameOf("a disk", name) }

func checkNameOf(what, name string) error {
	if _, err := uuid.Parse(name); err == nil {
		return refusal.New(refusal.Usage, "choose a name that is no UUID", "%q looks like an id", name)
	}
	if !nameRule.MatchString(name) {
		return refusal.New(refusal.Usage, "use 1 to 128 letters, digits, '.', '_' or '-', the first a letter or a digit",
			"%.200q can't be the name of %s", name, what)
	}
	return nil
}

func checkSector(size int) error {
	if size == 512 || size == 4096 {
		return nil
	}
	return refusal.New(refusal.Usage, "use 512 or 4096", "a sector can't have %d bytes", size)
}

// CheckShape refuses a size and sectors that no disk can have.
func CheckShape(size int64, sector int) error {
	if err := checkSector(sector); err != nil {
		return err
	}
	return checkSize(size, sector)
}

// checkSize refuses sizes that no disk can have.
func checkSize(size int64, sector int) error {
	switch {
	case size <= 0:
		return refusal.New(refusal.Usage, "give a size above 0, such as 10G", "a disk can't have %d bytes", size)
	case size > layer.MaxSize:
		return refusal.New(refusal.Usage, "the largest disk is 1 PiB (1125899906842624 bytes)", "%d bytes are more than the disk format can hold", size)
	case size%int64(sector) != 0:
		return refusal.New(refusal.Usage, "round it to a multiple of the sector size", "%d bytes are not whole sectors of %d", size, sector)
	}
	return nil
}
