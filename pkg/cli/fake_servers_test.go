package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

func (f *fake) serverRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteServerCreate, f.serverCreate)
	handle(control.RouteServerList, func(*http.Request) (any, error) { return control.List(f.servers), nil })
	handle(control.RouteServerShow, func(r *http.Request) (any, error) { return f.server(r.PathValue("server")) })
	handle(control.RouteServerRun, func(r *http.Request) (any, error) { // who asks for more has a fake of vm.Run
		_, err := f.server(r.PathValue("server"))
		return struct{}{}, err
	})
	handle(control.RouteServerStop, f.serverStop)
	handle(control.RouteServerDelete, f.serverDelete)
	handle(control.RouteServerAttach, f.serverAttach)
	handle(control.RouteServerDetach, f.serverDetach)
}

func (f *fake) server(name string) (*control.Server, error) {
	for _, s := range f.servers {
		if s.Name == name || s.ID == name {
			for i := range s.Disks { // as their keys are now
				if d, err := f.disk(s.Disks[i].ID); err == nil {
					s.Disks[i].Key, s.Disks[i].Status = d.Key, d.Status
				}
			}
			return s, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt server list` lists them.", "no server %s", name)
}

// asBody refuses nothing but bodies that can't be read.
func asBody[T any](r *http.Request) (v T, err error) {
	err = control.ReadJSON(r, &v)
	return v, err
}

func (f *fake) serverCreate(r *http.Request) (any, error) {
	ask, err := asBody[control.ServerCreate](r)
	if err != nil {
		return nil, err
	}
	if _, err := f.server(ask.Name); err == nil {
		return nil, refusal.New(refusal.Busy, "choose another name", "server %s exists already", ask.Name)
	}
	i, err := f.image(ask.Image)
	if err != nil {
		return nil, err
	}
	if ask.System.Encrypted != nil && i.Encrypted && (!*ask.System.Encrypted || ask.System.Key != "" && ask.System.Key != i.Key.Alias) {
		return nil, refusal.New(refusal.Usage, "leave it out", "image %s is encrypted under key %s, and so is the system disk of its servers", i.Name, i.Key.Alias)
	}
	if i.Key != nil && i.Key.State != "Enabled" {
		return nil, refusal.New(refusal.KeyForbids, "`nbdcrypt key enable "+i.Key.Alias+"`", "key %s of image %s is %s", i.Key.Alias, i.Name, i.Key.State)
	}
	s := f.newServer(ask.Name, ask.Machine, i)
	if err := f.newDisks(s, i, ask.System, ask.Data); err != nil {
		return nil, err
	}
	f.servers = append(f.servers, s)
	return s, nil
}

func (f *fake) newServer(name string, m control.Machine, i *control.Image) *control.Server {
	return &control.Server{ID: f.id(), Name: name, Project: "default", Status: control.ServerStopped, CPUs: cmp.Or(m.CPUs, 1), Memory: cmp.Or(m.Memory, 1<<30),
		Network: cmp.Or(m.Network, control.NetworkUser), Image: &control.DiskSource{Kind: "image", ID: i.ID, Name: i.Name}, Created: moment0()}
}

// newDisks makes a server's disks, all that is asked for.
func (f *fake) newDisks(s *control.Server, i *control.Image, system control.NewDisk, data []control.NewDisk) error {
	for n, ask := range append([]control.NewDisk{system}, data...) {
		d := &control.Disk{ID: f.id(), Name: fmt.Sprintf("%s-data-%d", s.Name, n), Project: "default", Size: ask.Size, SectorSize: cmp.Or(ask.SectorSize, 512), Status: "available", Created: moment0()}
		role := control.DataDisk
		if n == 0 {
			d.Name, d.Size, d.Encrypted, d.Key, d.Bootable, role = s.Name+"-system", max(ask.Size, i.Size), i.Encrypted, i.Key, true, control.SystemDisk
		}
		if ask.Encrypted != nil && *ask.Encrypted && d.Key == nil {
			k, err := f.key(cmp.Or(ask.Key, "evs/default"))
			if err != nil {
				return err
			}
			d.Encrypted, d.Key = true, &control.DiskKey{ID: k.ID, Alias: k.Alias, State: k.State}
		}
		d.Server = &control.DiskServer{ID: s.ID, Name: s.Name, Role: role}
		f.disks = append(f.disks, d)
		s.Disks = append(s.Disks, control.ServerDisk{Role: role, ID: d.ID, Name: d.Name, Size: d.Size, Encrypted: d.Encrypted, Key: d.Key, Status: d.Status})
	}
	return nil
}

// running has a server run, as if a runner had come.
func (f *fake) running(name string) control.Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.server(name)
	if err != nil {
		return control.Server{}
	}
	since := moment0()
	s.Status, s.By, s.PID, s.Console, s.Accelerator, s.Since = control.ServerRunning, "alice", 4242, "/run/servers/"+s.ID+"/console", "kvm", &since
	return *s
}

func (f *fake) serverStop(r *http.Request) (any, error) {
	ask, err := asBody[control.ServerStop](r)
	if err != nil {
		return nil, err
	}
	s, err := f.server(r.PathValue("server"))
	if err != nil {
		return nil, err
	}
	if s.Status != control.ServerRunning {
		return nil, refusal.New(refusal.Busy, "`nbdcrypt server start "+s.Name+"` starts it", "server %s is %s", s.Name, s.Status)
	}
	for _, d := range s.Disks {
		if d.Key != nil && d.Key.State != "Enabled" && r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "server %s could not be started again: disk %s is under key %s, which is %s", s.Name, d.Name, d.Key.Alias, d.Key.State)
		}
	}
	s.Status, s.By, s.PID, s.Console, s.Accelerator, s.Since, s.Ended = control.ServerStopped, "", 0, "", "", nil, "the guest shut down"
	out := *s
	if ask.Force {
		s.Ended = "it was switched off"
		out.Ended, out.Warnings = s.Ended, []string{"server " + s.Name + " was switched off: what the guest had not flushed is lost"}
	}
	return out, nil
}

func (f *fake) serverDelete(r *http.Request) (any, error) {
	s, err := f.server(r.PathValue("server"))
	if err != nil {
		return nil, err
	}
	if s.Status != control.ServerStopped {
		return nil, refusal.New(refusal.Busy, "`nbdcrypt server stop "+s.Name+"` first", "server %s is %s", s.Name, s.Status)
	}
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "server %s will be deleted", s.Name)
	}
	if r.URL.Query().Get(control.QueryKeepDisks) != "true" {
		f.disks = slices.DeleteFunc(f.disks, func(d *control.Disk) bool { return d.Server != nil && d.Server.ID == s.ID })
	}
	f.servers = slices.DeleteFunc(f.servers, func(o *control.Server) bool { return o == s })
	return struct{}{}, nil
}

func (f *fake) serverAttach(r *http.Request) (any, error) {
	ask, err := asBody[control.ServerDiskChange](r)
	if err != nil {
		return nil, err
	}
	s, err := f.server(r.PathValue("server"))
	if err != nil {
		return nil, err
	}
	d, err := f.disk(ask.Disk)
	if err != nil {
		return nil, err
	}
	if d.Server != nil {
		return nil, refusal.New(refusal.Busy, "`nbdcrypt server detach "+d.Server.Name+" "+d.Name+"` takes it from there", "disk %s is server %s's", d.Name, d.Server.Name)
	}
	role := map[bool]string{true: control.SystemDisk, false: control.DataDisk}[ask.System]
	d.Server = &control.DiskServer{ID: s.ID, Name: s.Name, Role: role}
	s.Disks = append(s.Disks, control.ServerDisk{Role: role, ID: d.ID, Name: d.Name, Size: d.Size, Encrypted: d.Encrypted, Key: d.Key, Status: d.Status})
	return s, nil
}

func (f *fake) serverDetach(r *http.Request) (any, error) {
	ask, err := asBody[control.ServerDiskChange](r)
	if err != nil {
		return nil, err
	}
	s, err := f.server(r.PathValue("server"))
	if err != nil {
		return nil, err
	}
	d, err := f.disk(ask.Disk)
	if err != nil {
		return nil, err
	}
	if d.Key != nil && d.Key.State != "Enabled" && r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "disk %s could not be attached again: key %s is %s", d.Name, d.Key.Alias, d.Key.State)
	}
	d.Server = nil
	s.Disks = slices.DeleteFunc(s.Disks, func(o control.ServerDisk) bool { return o.ID == d.ID })
	return s, nil
}

// noRunner is a runner that asks for its lease and has no QEMU.
func noRunner(ctx context.Context, o vm.Options) error {
	line, err := o.Client.ServerRun(ctx, o.Server, control.ServerRun{})
	if err != nil {
		return err
	}
	return line.Close()
}

// noConsole is a console that says which it is.
func noConsole(_ context.Context, path string, _ io.Reader, out io.Writer, log bool) error {
	_, err := fmt.Fprintln(out, path, log)
	return err
}
