package volume

// Abandon ends an attachment as a crash does: keys and files are gone, and the catalog does not know.
func (a *Attachment) Abandon() { _ = a.end(nil) }
