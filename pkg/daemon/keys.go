package daemon

import (
	"maps"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// keyView is a CMK as the API shows it.
func keyView(k keystore.Info) control.Key {
	v := control.Key{ID: k.ID, Alias: k.Alias, Project: k.Project, State: stateWord(k), Default: k.Default,
		Origin: k.Origin, Version: k.Version, Created: k.Created, DeletionDate: k.Deletion, Expires: k.Expires,
		Description: k.Description, Tags: map[string]string{}}
	maps.Copy(v.Tags, k.Tags)
	if k.RotationDays > 0 {
		v.RotationDays = &k.RotationDays
	}
	return v
}

func grantView(g keystore.GrantInfo) control.Grant {
	return control.Grant{Project: g.Project, Region: g.Region, By: g.By, Created: g.Created}
}

// grantCreate gives the project the key store's rights; the second time it changes nothing.
func (d *Daemon) grantCreate(c *call) (any, error) {
	if _, _, err := d.keys.Grant(c.ctx, c.request, c.project, c.caller.User); err != nil {
		return nil, err
	}
	return d.grantOf(c)
}

func (d *Daemon) grantOf(c *call) (control.Grant, error) {
	grants, err := d.keys.Grants(c.ctx)
	if err != nil {
		return control.Grant{}, err
	}
	for _, g := range grants {
		if g.Project == c.project {
			return grantView(g), nil
		}
	}
	return control.Grant{}, refusal.New(refusal.NotFound, "`nbdcrypt grant create` grants them", "the key store's rights are not granted to project %s", c.project)
}

// grantList shows the grants that the caller may see: those of the project that the call is about.
func (d *Daemon) grantList(c *call) (any, error) {
	views := []control.Grant{}
	g, err := d.grantOf(c)
	if err == nil {
		views = append(views, g)
	}
	if refusal.CodeOf(err) == refusal.NotFound {
		err = nil
	}
	return views, err
}

// grantRevoke takes the rights away. Where that strands encrypted disks it wants a yes.
func (d *Daemon) grantRevoke(c *call) (any, error) {
	if _, err := d.grantOf(c); err != nil {
		return nil, err
	}
	disks, points, err := d.stranded(c)
	if err != nil {
		return nil, err
	}
	if disks+points > 0 && !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes; `nbdcrypt grant create` grants them again",
			"without the key store's rights project %s can't use what it has encrypted: %d disks, and %d snapshots, images and backups", c.project, disks, points)
	}
	return nil, d.keys.RevokeGrant(c.ctx, c.request, c.project)
}

// stranded counts what a project could not use without the key store's rights.
func (d *Daemon) stranded(c *call) (disks, points int, err error) {
	err = d.volumes.List(c.ctx, c.project, false, func(disk volume.Disk) error {
		if disk.Encrypted {
			disks++
		}
		return nil
	})
	for _, kind := range volume.PointKinds {
		if err == nil {
			err = d.volumes.Points(c.ctx, kind, c.project, "", func(p volume.Point) error {
				if p.Encrypted {
					points++
				}
				return nil
			})
		}
	}
	return disks, points, err
}

func (d *Daemon) keyCreate(c *call) (any, error) {
	var in control.KeyCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	k, err := d.keys.CreateKey(c.ctx, c.request, c.project,
		keystore.KeySpec{Alias: in.Alias, Description: in.Description, Tags: in.Tags, Origin: in.Origin})
	return keyView(k), err
}

func (d *Daemon) keyList(c *call) (any, error) {
	keys, err := d.keys.Keys(c.ctx, c.project)
	if err != nil {
		return nil, err
	}
	sees, err := d.sees(c, access.KeyList, access.Describe)
	if err != nil {
		return nil, err
	}
	views := make([]control.Key, 0, len(keys))
	for _, k := range keys {
		if yes, err := sees(k.ID); err != nil {
			return nil, err
		} else if yes {
			views = append(views, keyView(k))
		}
	}
	return views, nil
}

func (d *Daemon) keyShow(c *call) (any, error) {
	k, err := d.keys.Key(c.ctx, c.project, c.key())
	return keyView(k), err
}

func (d *Daemon) keyEnable(c *call) (any, error) {
	k, err := d.keys.Enable(c.ctx, c.request, c.project, c.http.PathValue("key"))
	if err == nil {
		d.keysBack()
	}
	return keyView(k), err
}

func (d *Daemon) keyDisable(c *call) (any, error) {
	k, err := d.keys.Disable(c.ctx, c.request, c.project, c.http.PathValue("key"))
	return keyView(k), err
}
