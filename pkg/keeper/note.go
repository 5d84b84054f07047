package keeper

import "encoding/json"

// Note is what a keeper leaves with its device for the one that comes after it, where it is killed: which attachment the device stands for.
type Note struct {
	Attachment string `json:"attachment"`
	Epoch      uint64 `json:"epoch"`
}

// ReadNote reads what was left, nothing of what is none.
func ReadNote(line string) (n Note) {
	if json.Unmarshal([]byte(line), &n) != nil {
		return Note{}
	}
	return n
}

// note leaves one, before anything goes over connections of that attachment.
func (k *keeper) note() {
	line, err := json.Marshal(Note{k.At.Attachment, k.At.Epoch})
	if err == nil {
		err = k.Device.Note(string(line))
	}
	if err != nil {
		k.Say("%s can't be kept by another process after this one: %v", k.Device.Path(), err)
	}
}
