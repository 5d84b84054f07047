package control

import "encoding/json"

// Scripts walk over lists; a list that nothing was put in is [], never null. The methods below hold that on both
// ends, in what the daemon answers and in what a command prints.

// List is s, or an empty list in place of none.
func List[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// MarshalJSON writes s without a null list.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	s.Warnings, s.Listen = List(s.Warnings), List(s.Listen)
	return json.Marshal(plain(s))
}

// MarshalJSON writes d without a null list.
func (d Disk) MarshalJSON() ([]byte, error) {
	type plain Disk
	d.Layers, d.Attachments = List(d.Layers), List(d.Attachments)
	return json.Marshal(plain(d))
}

// MarshalJSON writes l without a null list.
func (l DiskLayer) MarshalJSON() ([]byte, error) {
	type plain DiskLayer
	l.Segments = List(l.Segments)
	return json.Marshal(plain(l))
}

// MarshalJSON writes a without a null list.
func (a Attachment) MarshalJSON() ([]byte, error) {
	type plain Attachment
	a.Allow = List(a.Allow)
	return json.Marshal(plain(a))
}

// MarshalJSON writes e without a null list.
func (e Escrow) MarshalJSON() ([]byte, error) {
	type plain Escrow
	e.Layers = List(e.Layers)
	return json.Marshal(plain(e))
}

// MarshalJSON writes r without a null list.
func (r CheckReport) MarshalJSON() ([]byte, error) {
	type plain CheckReport
	r.Findings = List(r.Findings)
	return json.Marshal(plain(r))
}

// MarshalJSON writes r without a null list.
func (r RootState) MarshalJSON() ([]byte, error) {
	type plain RootState
	r.Slots = List(r.Slots)
	return json.Marshal(plain(r))
}

// MarshalJSON writes k without a null list.
func (k RecoveryKit) MarshalJSON() ([]byte, error) {
	type plain RecoveryKit
	k.Sheets = List(k.Sheets)
	return json.Marshal(plain(k))
}

// MarshalJSON writes s without a null list.
func (s RecoverySheet) MarshalJSON() ([]byte, error) {
	type plain RecoverySheet
	s.Lines = List(s.Lines)
	return json.Marshal(plain(s))
}
