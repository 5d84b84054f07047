package control

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// KeyCreate asks for a new CMK. Origin is "generated" where it is empty.
type KeyCreate struct {
	Alias       string            `json:"alias"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Origin      string            `json:"origin,omitempty"`
}

// KeyUpdate asks for another alias or description, for tags to be set and others to go; what is nil stays.
type KeyUpdate struct {
	Alias       *string           `json:"alias,omitempty"`
	Description *string           `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Untag       []string          `json:"untag,omitempty"`
}

// KeySchedule asks for a CMK to be destroyed in that many days.
type KeySchedule struct {
	Days int `json:"days"`
}

// KeyCancel asks for it to be kept, and with Enable to be usable at once.
type KeyCancel struct {
	Enable bool `json:"enable,omitempty"`
}

// QueryDays goes with QueryVerb in a call to RouteKeyPredict.
const QueryDays = "days"

// KeyUse is something under a CMK.
type KeyUse struct {
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	Attached bool   `json:"attached"`
}

// Words of an Effect.
const (
	IOUntilDetach = "until-detach"
	IONone        = "none"
	AttachRefused = "refused"
	AttachNever   = "never"
)

// Effect is what a verb does to something under the CMK: whether its I/O goes on, and that it can't be attached any more, from
// when on; null where that is so already.
type Effect struct {
	Kind     string     `json:"kind"`
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Attached bool       `json:"attached"`
	IO       string     `json:"io"`
	Attach   string     `json:"attach"`
	From     *time.Time `json:"from"`
}

// Prediction is what a verb would do to a CMK. Date is when the CMK is destroyed, State what it is right after the verb, Undo the
// command that makes it usable again, empty where none does.
type Prediction struct {
	Verb    string     `json:"verb"`
	Key     Key        `json:"key"`
	State   string     `json:"state"`
	Date    *time.Time `json:"date"`
	Effects []Effect   `json:"effects"`
	Undo    string     `json:"undo"`
}

// Clock tells how the daemon judges the machine's clock.
type Clock struct {
	// Now is what the clock shows, Seen the latest time that is known to have been, Latest the one that deletions go by.
	Now    time.Time  `json:"now"`
	Seen   *time.Time `json:"seen"`
	Latest time.Time  `json:"latest"`
	// State is one of the words below, By how many seconds it is off.
	State string `json:"state"`
	By    int64  `json:"by"`
	// Due are the keys whose date of deletion has come by Latest.
	Due []Key `json:"due"`
}

// States of the clock. Behind a time that was seen, deletions go by that time; too far ahead, nothing is destroyed on its own.
const (
	ClockRight  = "right"
	ClockBehind = "behind"
	ClockAhead  = "ahead"
)

// KeyUpdate changes alias, description and tags of a CMK.
func (c *Client) KeyUpdate(ctx context.Context, key string, what KeyUpdate) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyUpdate, name: key, body: what})
}

// KeySchedule schedules the deletion of a CMK; yes confirms it.
func (c *Client) KeySchedule(ctx context.Context, key string, days int, yes bool) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeySchedule, name: key, body: KeySchedule{Days: days}, query: flags(QueryYes, yes)})
}

// KeyCancel cancels that.
func (c *Client) KeyCancel(ctx context.Context, key string, enable bool) (Key, error) {
	return ask[Key](ctx, c, call{route: RouteKeyCancel, name: key, body: KeyCancel{Enable: enable}})
}

// KeyDelete destroys a CMK whose date has come; yes confirms it.
func (c *Client) KeyDelete(ctx context.Context, key string, yes bool) error {
	return c.do(ctx, call{route: RouteKeyDelete, name: key, query: flags(QueryYes, yes)}, nil)
}

// KeyUses lists what is under a CMK.
func (c *Client) KeyUses(ctx context.Context, key string) ([]KeyUse, error) {
	return ask[[]KeyUse](ctx, c, call{route: RouteKeyUses, name: key})
}

// KeyPredict tells what a verb would do to a CMK. The days are those of schedule-deletion.
func (c *Client) KeyPredict(ctx context.Context, key, verb string, days int) (Prediction, error) {
	query := url.Values{QueryVerb: {verb}}
	if days != 0 {
		query.Set(QueryDays, strconv.Itoa(days))
	}
	return ask[Prediction](ctx, c, call{route: RouteKeyPredict, name: key, query: query})
}

// ClockShow tells how the daemon judges the clock.
func (c *Client) ClockShow(ctx context.Context) (Clock, error) {
	return ask[Clock](ctx, c, call{route: RouteClockShow})
}

// ClockAccept takes the machine's clock for right; yes confirms that keys are destroyed by it.
func (c *Client) ClockAccept(ctx context.Context, yes bool) (Clock, error) {
	return ask[Clock](ctx, c, call{route: RouteClockAccept, query: flags(QueryYes, yes)})
}
