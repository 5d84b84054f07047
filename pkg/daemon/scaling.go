package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
)

// configView is a scaling configuration as the API shows it.
func configView(s server.ScalingConfig) control.ScalingConfig {
	view := control.ScalingConfig{ID: s.ID.String(), Name: s.Name, Project: s.Project, Image: *refOf(&s.Image), Source: sourceView(s.Source), CPUs: s.CPUs, Memory: s.Memory,
		Network: s.Network, Disks: []control.ConfigDisk{}, Created: s.Created, Warnings: s.Warnings}
	for _, disk := range s.Disks {
		view.Disks = append(view.Disks, control.ConfigDisk{Role: disk.Role, Size: disk.Size, SectorSize: disk.SectorSize, Encrypted: disk.Encrypted, Key: underKey(disk.Key)})
	}
	return view
}

// config is the scaling configuration that the path names.
func (c *call) config() string { return c.http.PathValue("config") }

// configCreate makes a scaling configuration: of a server with an image of its system disk (rule A35), or of an image and what is named.
func (d *Daemon) configCreate(c *call) (any, error) {
	var in control.ConfigCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	spec, err := d.configSpec(c, in)
	if err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	s, err := d.servers.CreateConfig(c.ctx, c.request, spec)
	return configView(s), err
}

func (d *Daemon) configSpec(c *call, in control.ConfigCreate) (spec server.ConfigSpec, err error) {
	spec = server.ConfigSpec{Project: c.project, Name: in.Name, Server: in.Server, Image: in.Image, AskedEncrypted: in.System.Encrypted,
		CPUs: in.CPUs, Memory: in.Memory, Network: in.Network}
	if (in.Server == "") == (in.Image == "") {
		return spec, refusal.New(refusal.Usage, "name one of them with --from-server or --from-image", "a scaling configuration is made of a server or of an image")
	}
	if in.Server != "" {
		if in.System != (control.NewDisk{}) || len(in.Data) > 0 {
			return spec, refusal.New(refusal.Usage, "leave them out, or make it of an image", "a scaling configuration of a server has that server's disks")
		}
		return spec, nil
	}
	if spec.System, err = d.asNamed(c, in.System); err == nil {
		spec.Data, err = d.dataSpecs(c, in.Data)
	}
	return spec, err
}

func (d *Daemon) configList(c *call) (any, error) {
	return control.Stream(func(next func(any) error) error {
		return d.servers.Configs(c.ctx, c.project, func(s server.ScalingConfig) error { return next(configView(s)) })
	}), nil
}

func (d *Daemon) configShow(c *call) (any, error) {
	s, err := d.servers.Config(c.ctx, c.project, c.config())
	if err != nil {
		return nil, err
	}
	return configView(s), nil
}

func (d *Daemon) configDelete(c *call) (any, error) {
	s, err := d.servers.Config(c.ctx, c.project, c.config())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		with := ""
		if s.Owned {
			with = " with its image " + s.Image.Name
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; servers that were made of it stay as they are", "scaling configuration %s will be deleted%s", s.Name, with)
	}
	_, err = d.servers.DeleteConfig(c.ctx, c.request, c.project, s.ID.String())
	d.tidySoon() // what its image stood on may be needed by nobody else
	return nil, err
}

// groupView is a scaling group as the API shows it.
func groupView(g server.Group) control.ScalingGroup {
	view := control.ScalingGroup{ID: g.ID.String(), Name: g.Name, Project: g.Project, Config: *refOf(&g.Config), Min: g.Min, Max: g.Max, Size: len(g.Members),
		Members: []control.Member{}, Created: g.Created, Warnings: g.Warnings}
	for _, m := range g.Members {
		view.Members = append(view.Members, control.Member{ID: m.ID.String(), Name: m.Name, Status: string(m.Status)})
	}
	return view
}

// group is the scaling group that the path names.
func (c *call) group() string { return c.http.PathValue("group") }

// groupCreate makes a scaling group with its first members, as a job.
func (d *Daemon) groupCreate(c *call) (any, error) {
	var in control.GroupCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if err := d.servers.Preflight(c.ctx, c.project, in.Config); err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	spec := server.GroupSpec{Project: c.project, Name: in.Name, Config: in.Config, Min: in.Min, Max: in.Max}
	return d.startJob(c, control.Job{Verb: "scaling group create", Resource: in.Name, Unit: "members"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			g, err := d.servers.CreateGroup(ctx, c.request, spec, progress)
			return groupView(g), err
		})
}

func (d *Daemon) groupList(c *call) (any, error) {
	return control.Stream(func(next func(any) error) error {
		return d.servers.Groups(c.ctx, c.project, func(g server.Group) error { return next(groupView(g)) })
	}), nil
}

func (d *Daemon) groupShow(c *call) (any, error) {
	g, err := d.servers.Group(c.ctx, c.project, c.group())
	if err != nil {
		return nil, err
	}
	return groupView(g), nil
}

// groupScale has a group have as many members as are asked for, as a job. Those that go are stopped first.
func (d *Daemon) groupScale(c *call) (any, error) {
	var in control.GroupScale
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	g, err := d.servers.Group(c.ctx, c.project, c.group())
	if err != nil {
		return nil, err
	}
	if in.Size < g.Min || in.Size > g.Max {
		return nil, refusal.New(refusal.Usage, fmt.Sprintf("choose %d to %d", g.Min, g.Max), "group %s can't have %d members", g.Name, in.Size)
	}
	if in.Size > len(g.Members) {
		if err := d.servers.Preflight(c.ctx, c.project, g.Config.ID.String()); err != nil {
			return nil, err
		}
	}
	leaving, err := d.servers.Leaving(c.ctx, c.project, g.ID.String(), in.Size)
	if err != nil {
		return nil, err
	}
	if len(leaving) > 0 && !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "group %s will lose %s", g.Name, fateOf(leaving))
	}
	c.about = fmt.Sprint(in.Size)
	return d.startJob(c, control.Job{Verb: "scaling group scale", Resource: g.Name, Unit: "members"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			warnings, err := d.stopLeaving(ctx, g, leaving, in.Size, in.Force)
			if err != nil {
				return nil, err
			}
			scaled, err := d.servers.Scale(ctx, c.request, c.project, g.ID.String(), in.Size, progress)
			d.tidySoon()
			view := groupView(scaled.Group)
			view.Made, view.Deleted, view.Warnings = scaled.Made, scaled.Deleted, append(warnings, view.Warnings...)
			return view, err
		})
}

// fateOf names servers that are deleted, and says which of them are switched off for it.
func fateOf(leaving []server.Server) string {
	var names []string
	for _, s := range leaving {
		name := s.Name
		if s.Status != server.Stopped {
			name += " (" + string(s.Status) + ")"
		}
		names = append(names, name)
	}
	return fmt.Sprintf("%d members, which are stopped and deleted with their disks: %s", len(leaving), strings.Join(names, ", "))
}

// stopLeaving stops those that a group of size members has too many, which somebody agreed to; others may be too many by then.
func (d *Daemon) stopLeaving(ctx context.Context, g server.Group, asked []server.Server, size int, force bool) (warnings []string, err error) {
	if warnings, err = d.stopMembers(ctx, asked, force); err != nil {
		return nil, err
	}
	now, err := d.servers.Leaving(ctx, g.Project, g.ID.String(), size)
	if err == nil {
		err = agreed(g.Name, asked, now)
	}
	return warnings, err
}

// stopMembers stops those of a group's members that run and are to go. Their guests get as long as by `server stop`, all at the same time; with force, none.
func (d *Daemon) stopMembers(ctx context.Context, leaving []server.Server, force bool) (warnings []string, first error) {
	type ended struct {
		name     string
		warnings []string
		err      error
	}
	stops, running := make(chan ended), 0
	for _, s := range leaving {
		if l := d.leases.of(s.ID); l != nil {
			running++
			go func() {
				said, err := l.stop(ctx, stopPatience, force)
				stops <- ended{s.Name, said, err}
			}()
		}
	}
	for range running {
		e := <-stops
		for _, said := range e.warnings {
			warnings = append(warnings, "member "+e.name+": "+said)
		}
		if e.err != nil && first == nil {
			r := refusal.From(e.err)
			first = refusal.New(r.Code, cmp.Or(r.Hint, "stop it, then scale again"), "member %s could not be stopped, and no member was deleted: %w", e.name, e.err)
		}
	}
	slices.Sort(warnings) // whoever ended first
	return warnings, first
}

// agreed refuses to delete members that nobody was asked about: another scaling has made them while those that were to go were stopped.
func agreed(group string, asked, now []server.Server) error {
	for _, s := range now {
		if !slices.ContainsFunc(asked, func(other server.Server) bool { return other.ID == s.ID }) {
			return refusal.New(refusal.Busy, "`nbdcrypt scaling group show "+group+"` shows it as it is now; then try again",
				"group %s was scaled by somebody else meanwhile: member %s would be deleted too, and none was", group, s.Name)
		}
	}
	return nil
}

// groupDelete deletes a group with its members, as a job.
func (d *Daemon) groupDelete(c *call) (any, error) {
	g, err := d.servers.Group(c.ctx, c.project, c.group())
	if err != nil {
		return nil, err
	}
	leaving, err := d.servers.Leaving(c.ctx, c.project, g.ID.String(), 0)
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		with := ""
		if len(leaving) > 0 {
			with = " with " + fateOf(leaving)
		}
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "group %s will be deleted%s", g.Name, with)
	}
	force := c.flag(control.QueryForce)
	return d.startJob(c, control.Job{Verb: "scaling group delete", Resource: g.Name, Unit: "members"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			if _, err := d.stopLeaving(ctx, g, leaving, 0, force); err != nil { // what a guest did not flush goes with its disks
				return nil, err
			}
			_, err := d.servers.DeleteGroup(ctx, c.request, c.project, g.ID.String(), progress)
			d.tidySoon()
			return nil, err
		})
}

// configKind is what `key uses` calls a scaling configuration.
const configKind = "scaling-config"

// configUses are the scaling configurations with a disk under a key.
func (d *Daemon) configUses(ctx context.Context, project, keyID string) (uses []control.KeyUse, err error) {
	configs, err := d.servers.ConfigsUnder(ctx, project, keyID)
	for _, n := range configs {
		uses = append(uses, control.KeyUse{Kind: configKind, ID: n.ID.String(), Name: n.Name})
	}
	return uses, err
}

// noServersLeft refuses to delete a project that has servers, or what makes them.
func (d *Daemon) noServersLeft(c *call) error {
	servers, configs, groups, err := d.servers.Count(c.ctx, c.project)
	if err != nil {
		return err
	}
	for _, left := range []struct {
		n             int
		what, command string
	}{{groups, "scaling groups", "scaling group"}, {servers, "servers", "server"}, {configs, "scaling configurations", "scaling config"}} {
		if left.n > 0 {
			return refusal.New(refusal.Busy, fmt.Sprintf("`nbdcrypt %s list --project %s` lists them; delete them first", left.command, c.project),
				"project %s has %s; there are %d", c.project, left.what, left.n)
		}
	}
	return nil
}
