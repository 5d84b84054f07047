package control

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// flags makes the query of the switches that are on.
func flags(name string, on bool) url.Values {
	return allFlags(map[string]bool{name: on})
}

// allFlags is a query with those that are on.
func allFlags(on map[string]bool) url.Values {
	query := url.Values{}
	for name, is := range on {
		if is {
			query.Set(name, "true")
		}
	}
	return query
}

// ask makes a call whose answer is a T.
func ask[T any](ctx context.Context, c *Client, cl call) (T, error) {
	var out T
	err := c.do(ctx, cl, &out)
	return out, err
}

// Status tells how the daemon is, and with keys what it holds in key memory.
func (c *Client) Status(ctx context.Context, keys bool) (Status, error) {
	return ask[Status](ctx, c, call{route: RouteStatus, query: flags(QueryKeys, keys)})
}

// GrantCreate grants the key store's rights to the project.
func (c *Client) GrantCreate(ctx context.Context) (Grant, error) {
	return ask[Grant](ctx, c, call{route: RouteGrantCreate})
}

// GrantList lists the grants that the caller may see.
func (c *Client) GrantList(ctx context.Context) ([]Grant, error) {
	return ask[[]Grant](ctx, c, call{route: RouteGrantList})
}

// GrantRevoke takes the rights back; yes confirms that disks can't be attached after it.
func (c *Client) GrantRevoke(ctx context.Context, yes bool) error {
	return c.do(ctx, call{route: RouteGrantRevoke, query: flags(QueryYes, yes)}, nil)
}

// KeyCreate makes a CMK.
func (c *Client) KeyCreate(ctx context.Context, key KeyCreate) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyCreate, body: key})
}

// KeyList lists the project's CMKs.
func (c *Client) KeyList(ctx context.Context) ([]Key, error) {
	return ask[[]Key](ctx, c, call{route: RouteKeyList})
}

// KeyShow tells about one CMK.
func (c *Client) KeyShow(ctx context.Context, key string) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyShow, name: key})
}

// KeyEnable makes a CMK usable again.
func (c *Client) KeyEnable(ctx context.Context, key string) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyEnable, name: key})
}

// KeyDisable makes a CMK unusable until it is enabled.
func (c *Client) KeyDisable(ctx context.Context, key string) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyDisable, name: key})
}

// DiskCreate makes a disk.
func (c *Client) DiskCreate(ctx context.Context, disk DiskCreate) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskCreate, body: disk})
}

// DiskList lists the project's disks.
func (c *Client) DiskList(ctx context.Context) (list []Disk, err error) {
	err = EachDisk(ctx, c, func(d Disk) error { list = append(list, d); return nil })
	return list, err
}

// DiskShow tells about one disk.
func (c *Client) DiskShow(ctx context.Context, disk string) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskShow, name: disk})
}

// DiskExtend makes a disk larger.
func (c *Client) DiskExtend(ctx context.Context, disk string, size int64) (Disk, error) {
	return ask[Disk](ctx, c, call{route: RouteDiskExtend, name: disk, body: DiskExtend{Size: size}})
}

// DiskDelete deletes a disk with its data; yes confirms it.
func (c *Client) DiskDelete(ctx context.Context, disk string, yes bool) error {
	return c.do(ctx, call{route: RouteDiskDelete, name: disk, query: flags(QueryYes, yes)}, nil)
}

// DiskEscrow gives out a disk's keys; yes confirms it.
func (c *Client) DiskEscrow(ctx context.Context, disk string, yes bool) (Escrow, error) {
	return ask[Escrow](ctx, c, call{route: RouteDiskEscrow, name: disk, query: flags(QueryYes, yes)})
}

// Attach makes a disk readable.
func (c *Client) Attach(ctx context.Context, disk string, how Attach) (Attached, error) {
	return ask[Attached](ctx, c, call{route: RouteAttach, name: disk, body: how})
}

// Detach ends that; yes confirms it where the disk can't be attached again.
func (c *Client) Detach(ctx context.Context, disk string, yes bool) (Detached, error) {
	return ask[Detached](ctx, c, call{route: RouteDetach, name: disk, query: flags(QueryYes, yes)})
}

// Check looks for damage in one disk, or in everything where disk is empty.
func (c *Client) Check(ctx context.Context, disk string) (CheckReport, error) {
	return ask[CheckReport](ctx, c, call{route: RouteCheck, body: Check{Disk: disk}})
}

// JobList lists the project's jobs, those that ended not long ago too.
func (c *Client) JobList(ctx context.Context) ([]Job, error) {
	return ask[[]Job](ctx, c, call{route: RouteJobList})
}

// JobShow tells about one job. With a wait the answer comes when it has ended or has news past the revision after, at
// the latest after that long.
func (c *Client) JobShow(ctx context.Context, id string, after uint64, wait time.Duration) (Job, error) {
	var query url.Values
	if wait > 0 {
		query = url.Values{QueryWait: {wait.String()}, QueryAfter: {strconv.FormatUint(after, 10)}}
	}
	return ask[Job](ctx, c, call{route: RouteJobShow, name: id, query: query})
}

// JobCancel asks a job to stop.
func (c *Client) JobCancel(ctx context.Context, id string) (Job, error) {
	return ask[Job](ctx, c, call{route: RouteJobCancel, name: id})
}
