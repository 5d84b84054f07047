package cli

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (f *fake) scalingRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteConfigCreate, f.configCreate)
	handle(control.RouteConfigList, func(*http.Request) (any, error) { return control.List(f.configs), nil })
	handle(control.RouteConfigShow, func(r *http.Request) (any, error) { return f.config(r.PathValue("config")) })
	handle(control.RouteConfigDelete, func(r *http.Request) (any, error) {
		c, err := f.config(r.PathValue("config"))
		if err == nil && r.URL.Query().Get(control.QueryYes) != "true" {
			err = refusal.New(refusal.Confirm, "", "scaling configuration %s will be deleted", c.Name)
		}
		if err == nil {
			f.configs = slices.DeleteFunc(f.configs, func(o *control.ScalingConfig) bool { return o == c })
		}
		return struct{}{}, err
	})
	handle(control.RouteGroupCreate, f.groupCreate)
	handle(control.RouteGroupList, func(*http.Request) (any, error) { return control.List(f.groups), nil })
	handle(control.RouteGroupShow, func(r *http.Request) (any, error) { return f.group(r.PathValue("group")) })
	handle(control.RouteGroupScale, f.groupScale)
	handle(control.RouteGroupDelete, func(r *http.Request) (any, error) {
		g, err := f.group(r.PathValue("group"))
		if err == nil && r.URL.Query().Get(control.QueryYes) != "true" {
			err = refusal.New(refusal.Confirm, "", "scaling group %s will be deleted, with its %d members", g.Name, g.Size)
		}
		if err == nil {
			f.groups = slices.DeleteFunc(f.groups, func(o *control.ScalingGroup) bool { return o == g })
		}
		return struct{}{}, err
	})
}

func (f *fake) config(name string) (*control.ScalingConfig, error) {
	for _, c := range f.configs {
		if c.Name == name || c.ID == name {
			return c, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt scaling config list` lists them.", "no scaling configuration %s", name)
}

func (f *fake) group(name string) (*control.ScalingGroup, error) {
	for _, g := range f.groups {
		if g.Name == name || g.ID == name {
			return g, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt scaling group list` lists them.", "no scaling group %s", name)
}

func (f *fake) configCreate(r *http.Request) (any, error) {
	ask, err := asBody[control.ConfigCreate](r)
	if err != nil {
		return nil, err
	}
	c := &control.ScalingConfig{ID: f.id(), Name: ask.Name, Project: "default", Created: moment0()}
	if ask.Server == "" {
		i, err := f.image(ask.Image)
		if err != nil {
			return nil, err
		}
		c.Image, c.CPUs, c.Memory, c.Network = control.Ref{ID: i.ID, Name: i.Name}, cmp.Or(ask.CPUs, 1), cmp.Or(ask.Memory, 1<<30), cmp.Or(ask.Network, control.NetworkUser)
		c.Disks = []control.ConfigDisk{{Role: control.SystemDisk, Size: max(i.Size, ask.System.Size), SectorSize: 512, Encrypted: i.Encrypted, Key: i.Key}}
		for _, d := range ask.Data {
			c.Disks = append(c.Disks, control.ConfigDisk{Role: control.DataDisk, Size: d.Size, SectorSize: cmp.Or(d.SectorSize, 512)})
		}
	} else {
		s, err := f.server(ask.Server)
		if err != nil {
			return nil, err
		}
		c.Source = &control.DiskSource{Kind: "server", ID: s.ID, Name: s.Name}
		c.Image, c.CPUs, c.Memory, c.Network = control.Ref{ID: f.id(), Name: ask.Name}, cmp.Or(ask.CPUs, s.CPUs), cmp.Or(ask.Memory, s.Memory), cmp.Or(ask.Network, s.Network)
		for _, d := range s.Disks {
			c.Disks = append(c.Disks, control.ConfigDisk{Role: d.Role, Size: d.Size, SectorSize: 512, Encrypted: d.Encrypted, Key: d.Key})
		}
	}
	f.configs = append(f.configs, c)
	return c, nil
}

func (f *fake) groupCreate(r *http.Request) (any, error) {
	ask, err := asBody[control.GroupCreate](r)
	if err != nil {
		return nil, err
	}
	c, err := f.config(ask.Config)
	if err != nil {
		return nil, err
	}
	g := &control.ScalingGroup{ID: f.id(), Name: ask.Name, Project: "default", Config: control.Ref{ID: c.ID, Name: c.Name}, Min: ask.Min, Max: ask.Max, Created: moment0()}
	f.groups = append(f.groups, g)
	f.grow(g, ask.Min)
	return g, nil
}

// grow makes members of a group, which have no disks here.
func (f *fake) grow(g *control.ScalingGroup, size int) (made []string) {
	for ; g.Size < size; g.Size++ {
		f.numbers++
		s := &control.Server{ID: f.id(), Name: fmt.Sprintf("%s-%d", g.Name, f.numbers), Project: "default", Status: control.ServerStopped, Group: &control.Ref{ID: g.ID, Name: g.Name}, Created: moment0()}
		f.servers = append(f.servers, s)
		g.Members = append(g.Members, control.Member{ID: s.ID, Name: s.Name, Status: s.Status})
		made = append(made, s.Name)
	}
	return made
}

func (f *fake) groupScale(r *http.Request) (any, error) {
	ask, err := asBody[control.GroupScale](r)
	if err != nil {
		return nil, err
	}
	g, err := f.group(r.PathValue("group"))
	if err != nil {
		return nil, err
	}
	if ask.Size < g.Min || ask.Size > g.Max {
		return nil, refusal.New(refusal.Usage, fmt.Sprintf("use %d to %d", g.Min, g.Max), "scaling group %s can't have %d members", g.Name, ask.Size)
	}
	if ask.Size < g.Size && r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "%d members of scaling group %s will be deleted, with their disks", g.Size-ask.Size, g.Name)
	}
	made := f.grow(g, ask.Size)
	var gone []string
	for ; g.Size > ask.Size; g.Size-- {
		last := g.Members[g.Size-1]
		gone, g.Members = append(gone, last.Name), g.Members[:g.Size-1]
		f.servers = slices.DeleteFunc(f.servers, func(s *control.Server) bool { return s.ID == last.ID })
	}
	out := *g
	out.Made, out.Deleted = made, gone
	return out, nil
}
