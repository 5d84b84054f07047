package daemon

import (
	"fmt"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// clockShow tells how the clock is judged, and which keys of the project wait for it.
func (d *Daemon) clockShow(c *call) (any, error) {
	v := control.Clock{Now: d.clock.Now(), Latest: d.clock.Latest(), State: control.ClockRight, Due: []control.Key{}}
	if seen := d.clock.Mark(); !seen.IsZero() {
		v.Seen = &seen
	}
	if by, yes := d.clock.Behind(); yes {
		v.State, v.By = control.ClockBehind, int64(by/time.Second)
	}
	if by, yes := d.clock.Ahead(); yes {
		v.State, v.By = control.ClockAhead, int64(by/time.Second)
	}
	for _, due := range d.keys.Due(v.Latest) {
		if due.Kind != keystore.DueDeletion || d.rights().Check(c.ctx, c.caller, access.KeyShow, due.Project) != nil {
			continue
		}
		if k, err := d.keys.Key(c.ctx, due.Project, due.ID); err == nil {
			v.Due = append(v.Due, keyView(k))
		}
	}
	return v, nil
}

// clockAccept takes the machine's clock for right, and does at once what that makes due.
func (d *Daemon) clockAccept(c *call) (any, error) {
	var lost []string
	for _, due := range d.keys.Due(d.clock.Now()) {
		if !due.Begun() && due.Kind != keystore.DueRotation {
			lost = append(lost, fmt.Sprintf("%s of project %s", due.Alias, due.Project))
		}
	}
	if _, doubted := d.clock.Ahead(); doubted && !c.yes() {
		what := "no key is due"
		if len(lost) > 0 {
			what = "that destroys at once: " + cut(strings.Join(lost, ", "))
		}
		return nil, refusal.New(refusal.Confirm, "set the clock right if it is wrong; else repeat it with --yes",
			"the clock shows %s, and is taken for right from now on: %s", d.clock.Now().Format(time.RFC3339), what)
	}
	if err := d.clock.Accept(c.ctx, c.request); err != nil {
		return nil, err
	}
	d.lookAtDue(c.ctx)
	return d.clockShow(c)
}
