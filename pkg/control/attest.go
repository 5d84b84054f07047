package control

import (
	"context"
	"encoding/json"
	"net/url"
)

// QueryAttest asks RouteDetach to answer with a job that ends when memory was searched for traces of the disk's key.
const QueryAttest = "attest"

// Attest is what that search has read and found.
type Attest struct {
	Bytes      int64   `json:"bytes"`
	Regions    int     `json:"regions"`
	Unreadable int64   `json:"unreadable"`
	Seconds    float64 `json:"seconds"`
	// Found counts all places, Hits are the first of them.
	Found int         `json:"found"`
	Hits  []AttestHit `json:"hits"`
}

// AttestHit is a trace of a key. Layer and Address are empty for what lies in free key memory: nobody knows whose it was.
type AttestHit struct {
	What    string `json:"what"`
	Layer   string `json:"layer"`
	Region  string `json:"region"`
	Address string `json:"address"`
}

// MarshalJSON writes a without a null list.
func (a Attest) MarshalJSON() ([]byte, error) {
	type plain Attest
	a.Hits = List(a.Hits)
	return json.Marshal(plain(a))
}

// DetachAttested is Detach that also waits for the search of memory. Attest is nil where no key was wiped.
func (c *Client) DetachAttested(ctx context.Context, disk string, yes bool) (Detached, error) {
	return c.DetachAs(ctx, disk, DetachHow{Yes: yes, Attest: true})
}

// QueryAttachment names to RouteDetach which attachment of a shared disk ends; without it the caller's newest does.
const QueryAttachment = "attachment"

// QueryAsk asks RouteDetach which attachment would end and whether that needs a yes, and has nothing done: what is to be done before a
// detach, such as unmounting, should not be done for one that is refused.
const QueryAsk = "ask"

// DetachHow is what a detach may be told.
type DetachHow struct {
	Attachment       string
	Yes, Attest, Ask bool
}

// DetachAs is Detach with all that it may be told.
func (c *Client) DetachAs(ctx context.Context, disk string, how DetachHow) (Detached, error) {
	query := url.Values{}
	if how.Attachment != "" {
		query.Set(QueryAttachment, how.Attachment)
	}
	for name, on := range map[string]bool{QueryYes: how.Yes, QueryAttest: how.Attest, QueryAsk: how.Ask} {
		if on {
			query.Set(name, "true")
		}
	}
	return ask[Detached](ctx, c, call{route: RouteDetach, name: disk, query: query})
}
