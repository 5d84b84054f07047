package control

import (
	"context"
	"net/url"
	"time"
)

// SnapshotCreate asks for a snapshot of a disk, as that is at this moment.
type SnapshotCreate struct {
	Name string `json:"name"`
	Disk string `json:"disk"`
}

// Snapshot is what `snapshot show` prints.
type Snapshot struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Project    string   `json:"project"`
	Size       int64    `json:"size"`
	SectorSize int      `json:"sector_size"`
	Encrypted  bool     `json:"encrypted"`
	Key        *DiskKey `json:"key"`
	Status     string   `json:"status"`
	// Source is the disk that it is of, as that was called then; null where the record can't be read.
	Source  *DiskSource `json:"source"`
	Created time.Time   `json:"created"`
	// Warnings say what the disk may have lost before, and what stands in the way of using the snapshot.
	Warnings []string `json:"warnings,omitempty"`
}

// DiskRollback asks for a disk to hold again what one of its snapshots holds.
type DiskRollback struct {
	Snapshot string `json:"snapshot"`
}

// SnapshotCreate makes a snapshot of a disk.
func (c *Client) SnapshotCreate(ctx context.Context, snapshot SnapshotCreate) (Snapshot, error) {
	return ask[Snapshot](ctx, c, call{route: RouteSnapshotCreate, body: snapshot})
}

// SnapshotList lists the project's snapshots, or those of one disk where that is named.
func (c *Client) SnapshotList(ctx context.Context, disk string) ([]Snapshot, error) {
	var query url.Values
	if disk != "" {
		query = url.Values{QueryDisk: {disk}}
	}
	return ask[[]Snapshot](ctx, c, call{route: RouteSnapshotList, query: query})
}

// SnapshotShow tells about one snapshot.
func (c *Client) SnapshotShow(ctx context.Context, snapshot string) (Snapshot, error) {
	return ask[Snapshot](ctx, c, call{route: RouteSnapshotShow, name: snapshot})
}

// DiskRollback has a disk hold again what a snapshot of it holds; yes confirms it.
func (c *Client) DiskRollback(ctx context.Context, disk, snapshot string, yes bool) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskRollback, name: disk, query: flags(QueryYes, yes), body: DiskRollback{Snapshot: snapshot}})
}
