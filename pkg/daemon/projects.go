package daemon

import (
	"cmp"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

func (d *Daemon) projectCreate(c *call) (any, error) {
	var in control.ProjectCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	c.about = in.Name
	p, err := d.access.CreateProject(c.ctx, c.request, c.caller, in.Name, d.clock.Now())
	if err != nil {
		return nil, err
	}
	return d.projectView(c, p)
}

// projectView is a project as the API shows it.
func (d *Daemon) projectView(c *call, p access.Project) (control.Project, error) {
	v := control.Project{Name: p.Name, EncryptByDefault: p.EncryptByDefault}
	if p.Name != control.DefaultProject {
		v.By, v.Created = p.By, &p.Created
	}
	if p.Damage != "" {
		v.Warnings = append(v.Warnings, p.Damage)
	}
	granted, err := d.keys.Granted(c.ctx, p.Name)
	if refusal.CodeOf(err) == refusal.Damaged {
		v.Warnings = append(v.Warnings, refusal.From(err).Message)
	} else if err != nil {
		return v, err
	}
	v.Granted = granted
	key, err := d.keys.Key(c.ctx, p.Name, "")
	if p.DefaultKey != "" {
		key, err = d.keys.KeyOf(c.ctx, p.Name, p.DefaultKey)
	}
	switch {
	case err == nil:
		v.DefaultKey = &control.DiskKey{ID: key.ID, Alias: key.Alias, State: key.State.String()}
	case refusal.CodeOf(err) == refusal.Damaged:
		v.Warnings = append(v.Warnings, "its default key: "+refusal.From(err).Message)
	case refusal.CodeOf(err) != refusal.NotFound:
		return v, err
	case p.DefaultKey != "":
		v.DefaultKey = &control.DiskKey{ID: p.DefaultKey, State: stateWord(keystore.Info{})}
	}
	return v, nil
}

// projectList shows the projects that the caller may see.
func (d *Daemon) projectList(c *call) (any, error) {
	list, err := d.access.Projects(c.ctx, c.caller)
	if err != nil {
		return nil, err
	}
	views := make([]control.Project, len(list))
	for i, p := range list {
		if views[i], err = d.projectView(c, p); err != nil {
			return nil, err
		}
	}
	return views, nil
}

func (d *Daemon) projectShow(c *call) (any, error) {
	p, err := d.access.Project(c.ctx, c.project)
	if err != nil {
		return nil, err
	}
	return d.projectView(c, p)
}

// projectSet changes what disks are that are made from now on; those that are there stay as they are (rule C1).
func (d *Daemon) projectSet(c *call) (any, error) {
	var in control.ProjectSet
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	var key keystore.Info
	if in.DefaultKey != nil {
		var err error
		if key, err = d.keys.Key(c.ctx, c.project, *in.DefaultKey); err != nil {
			return nil, err
		}
		if err := key.May(keystore.Use); err != nil {
			return nil, err
		}
	}
	p, err := d.access.SetProject(c.ctx, c.request, c.project, func(p *access.Project) {
		if in.EncryptByDefault != nil {
			p.EncryptByDefault = *in.EncryptByDefault
		}
		if in.DefaultKey != nil && key.Default {
			p.DefaultKey = "" // there is one in each region
		} else if in.DefaultKey != nil {
			p.DefaultKey = key.ID
		}
	})
	if err != nil {
		return nil, err
	}
	v, err := d.projectView(c, p)
	if err == nil && v.EncryptByDefault && !v.Granted {
		v.Warnings = append(v.Warnings, fmt.Sprintf("the key store's rights are not granted to project %s: until `nbdcrypt grant create --project %s` only disks "+
			"that are asked for with --plain can be made", p.Name, p.Name))
	}
	return v, err
}

// projectDelete deletes a project that nothing is left in. Its default key, which nothing is under, is destroyed with it.
func (d *Daemon) projectDelete(c *call) (any, error) {
	if _, err := d.access.Project(c.ctx, c.project); err != nil && refusal.CodeOf(err) != refusal.Damaged {
		return nil, err
	}
	if c.project != control.DefaultProject {
		if err := d.mayEndProject(c); err != nil {
			return nil, err
		}
		if err := d.keys.EndProject(c.ctx, c.request, c.project); err != nil {
			return nil, err
		}
	}
	return nil, d.access.DeleteProject(c.ctx, c.request, c.project)
}

func (d *Daemon) mayEndProject(c *call) error {
	if err := d.noServersLeft(c); err != nil {
		return err
	}
	one, count := "", 0
	err := d.volumes.List(c.ctx, c.project, false, func(v volume.Disk) error {
		one, count = v.Name, count+1
		return nil
	})
	if err != nil {
		return err
	}
	if count > 0 {
		return refusal.New(refusal.Busy, fmt.Sprintf("`nbdcrypt disk list --project %s` lists them; delete them first", c.project),
			"project %s has disks, %s among them; there are %d", c.project, one, count)
	}
	for _, kind := range volume.PointKinds {
		if err := d.noneLeft(c, kind); err != nil {
			return err
		}
	}
	if err := d.keys.MayEndProject(c.ctx, c.project); err != nil {
		return err
	}
	if !c.yes() {
		return refusal.New(refusal.Confirm, "repeat it with --yes to do it",
			"project %s will be deleted with everybody's roles in it, and its default key destroyed, under which nothing is", c.project)
	}
	return nil
}

// noneLeft refuses to delete a project that has points of a kind.
func (d *Daemon) noneLeft(c *call, kind string) error {
	one, count := "", 0
	err := d.volumes.Points(c.ctx, kind, c.project, "", func(p volume.Point) error {
		one, count = p.Name, count+1
		return nil
	})
	if err == nil && count > 0 {
		err = refusal.New(refusal.Busy, fmt.Sprintf("`nbdcrypt %s list --project %s` lists them; delete them first", kind, c.project),
			"project %s has %ss, %s among them; there are %d", c.project, kind, one, count)
	}
	return err
}

// keyOfNew is the id of the key that the disk would be under which a call asks for; empty for a plain one.
func (d *Daemon) keyOfNew(c *call) (string, error) {
	var in control.DiskCreate
	if err := control.PeekJSON(c.http, &in); err != nil {
		return "", err
	}
	if p, err := d.pointFor(c, in); err != nil || p != nil {
		if err != nil || p.Key == nil {
			return "", err
		}
		return p.Key.ID, nil
	}
	encrypted, ref, err := d.choice(c, in)
	if err != nil || !encrypted {
		return "", err
	}
	key, err := d.keys.Key(c.ctx, c.project, ref)
	return key.ID, err
}

// choice is what a new disk is to be: encrypted, and under which key. What the caller left open the project decides (rule C1).
func (d *Daemon) choice(c *call, in control.DiskCreate) (encrypted bool, key string, err error) {
	if in.Encrypted != nil && !*in.Encrypted || in.Key != "" {
		return in.Encrypted == nil || *in.Encrypted, in.Key, nil
	}
	p, err := d.access.Project(c.ctx, c.project)
	if err != nil || in.Encrypted == nil && !p.EncryptByDefault {
		return false, "", err
	}
	return true, cmp.Or(c.onlyKey, p.DefaultKey), d.defaultKeyThere(c, p)
}

// defaultKeyThere refuses where the key that a project puts its disks under is gone.
func (d *Daemon) defaultKeyThere(c *call, p access.Project) error {
	if p.DefaultKey == "" {
		return nil
	}
	key, err := d.keys.KeyOf(c.ctx, p.Name, p.DefaultKey)
	if refusal.CodeOf(err) != refusal.NotFound && (err != nil || key.Region == d.o.Region) {
		return err
	}
	return refusal.New(refusal.KeyForbids, fmt.Sprintf("name a key with --key, or let an administrator choose another: `nbdcrypt project set %s --default-key KEY`", p.Name),
		"the default key %s of project %s is deleted, or of another region", p.DefaultKey, p.Name)
}
