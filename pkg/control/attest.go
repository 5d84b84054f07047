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

// DetachAttested is Detach that also waits for the search of memory. Attest is nil where the disk had no key.
func (c *Client) DetachAttested(ctx context.Context, disk string, yes bool) (Detached, error) {
	query := url.Values{QueryAttest: {"true"}}
	if yes {
		query.Set(QueryYes, "true")
	}
	return ask[Detached](ctx, c, call{route: RouteDetach, name: disk, query: query})
}
