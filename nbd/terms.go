package nbd

// terms is what a connection has agreed on in its handshake. STARTTLS forgets all of it (spec item 11).
type terms struct {
	structured bool // every READ is answered in chunks
	extended   bool // headers with 64-bit lengths; structured is set too
	// allocation tells that base:allocation was asked for, on the export of that name.
	allocation bool
	metaExport string
}

// settle is called when an export was opened: contexts that were chosen for another one are void (spec item 26).
func (t *terms) settle(e *Export) { t.allocation = t.allocation && t.metaExport == e.name }
