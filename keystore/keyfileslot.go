package keystore

import (
	"errors"

	"nbdcrypt/pkg/refusal"
)

// AddKeyFile writes the root key file anew where it is missing: what a store gets that was opened by other means.
func (r *Root) AddKeyFile() (SlotInfo, error) {
	r.ways.Lock()
	defer r.ways.Unlock()
	if err := errors.Join(r.needOpen(), r.noSlots()); err != nil {
		return SlotInfo{}, err
	}
	if exists(r.keyFile) {
		return SlotInfo{}, refusal.New(refusal.Busy, "where it is damaged, remove it first: `nbdcrypt root slot remove key-file`", "the root key file %s is there already", r.keyFile)
	}
	if err := r.writeKeyFile(); err != nil {
		return SlotInfo{}, refusal.New(refusal.Failed, "see that the daemon's user may write there, and that the disk is not full",
			"the root key file %s could not be made: %w", r.keyFile, err)
	}
	info := r.keyFileInfo()
	if !info.Present {
		return info, errors.New("keystore: the new root key file does not open: " + info.Detail)
	}
	return info, nil
}
