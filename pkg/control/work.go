package control

import "context"

// DiskSpace is what a disk takes in the pool, in bytes: what is written in its layers, the part of that which others stand on too, and what is
// reserved for zeros.
type DiskSpace struct {
	Written  int64 `json:"written"`
	Shared   int64 `json:"shared"`
	Reserved int64 `json:"reserved"`
}

// SnapshotDeleted is the answer to RouteSnapshotDelete: what stays of a snapshot, and why.
type SnapshotDeleted struct {
	Warnings []string `json:"warnings,omitempty"`
}

// DiskRekey gives a disk another data key. Its warnings say who keeps the old one.
func (c *Client) DiskRekey(ctx context.Context, disk string) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskRekey, name: disk})
}

// SnapshotDelete deletes a snapshot; yes confirms it.
func (c *Client) SnapshotDelete(ctx context.Context, snapshot string, yes bool) (SnapshotDeleted, error) {
	return ask[SnapshotDeleted](ctx, c, call{route: RouteSnapshotDelete, name: snapshot, query: flags(QueryYes, yes)})
}
