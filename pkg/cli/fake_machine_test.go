package cli

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/pkg/blockdev"
	"nbdcrypt/pkg/keeper"
	"nbdcrypt/pkg/mounts"
	"nbdcrypt/pkg/vm"
)

// fakeMachine is a machine with a kernel that has devices. It notes what is done to it.
type fakeMachine struct {
	machine
	steps  []string
	fails  map[string]error // by the step's first word
	taken  int              // how many devices somebody else takes before we can
	users  []string
	config blockdev.Config
	mount  *mounts.Mounted
	kept   *keeper.Options
	ends   bool // the keeper is told to end
	keeps  int  // for so many looks a keeper is still there
	note   string
	// options are those of the last runner, which runs is; without it there is one that ends at once.
	options vm.Options
	runs    func(context.Context, vm.Options) error
	// program is what a keeper in the background is.
	program string
}

type fakeDevice struct {
	keeper.Device
	path string
}

func (d fakeDevice) Path() string { return d.path }

func newMachine(uid int) *fakeMachine {
	m := &fakeMachine{fails: map[string]error{}}
	m.machine = machine{uid: uid,
		free: func() (string, error) { return fmt.Sprint("/dev/nbd", len(m.done("connect"))), nil },
		connect: func(_ context.Context, c blockdev.Config) (keeper.Device, error) {
			m.config = c
			if err := m.step("connect", c.Path); err != nil {
				return nil, err
			}
			if len(m.done("connect")) <= m.taken {
				return nil, fmt.Errorf("%s: %w", c.Path, syscall.EBUSY)
			}
			return fakeDevice{path: c.Path}, nil
		},
		backend:    func(device string) (string, bool, error) { return m.config.Identifier, m.config.Path == device, nil },
		disconnect: func(_ context.Context, device string) error { return m.step("disconnect", device) },
		users:      func(string) ([]string, error) { return m.users, nil },
		sync:       func(device string) error { return m.step("sync", device) },
		safe:       func(place string, uid int) error { return m.fails["safe"] },
		place:      func(dir string) (string, error) { return dir, nil },
		noted:      func(string) (string, error) { return m.note, nil },
		adopt: func(_ context.Context, c blockdev.Config) (keeper.Device, error) {
			m.config = c
			return fakeDevice{path: c.Path}, m.step("adopt", c.Path)
		},
		point: func(dir string) (string, error) { return dir, m.step("point", dir) },
		kept: func(string) (bool, error) {
			m.keeps--
			return m.keeps >= 0, nil
		},
		devices: func() []string { return []string{"/dev/nbd9", m.config.Path} },
		mounted: func(string) (*mounts.Mounted, error) { return m.mount, nil },
		mount: func(_ context.Context, device, dir string, readOnly bool) error {
			m.mount = &mounts.Mounted{Dir: dir, Source: device}
			return m.step("mount", fmt.Sprint(device, dir, readOnly))
		},
		unmount: func(_ context.Context, dir string) error { return m.step("unmount", dir) },
		fuse: func(_ context.Context, uri, dir, name string, readOnly bool) error {
			return m.step("fuse", fmt.Sprint(dir, " ", name, readOnly))
		},
		unmountFuse: func(_ context.Context, dir string, lazy bool) error {
			return m.step("unmount", fmt.Sprint(dir, lazy))
		},
		qemu: func() error { return m.fails["qemu"] },
		runServer: func(ctx context.Context, o vm.Options) error {
			m.options = o
			if m.runs != nil {
				return m.runs(ctx, o)
			}
			return m.step("run", o.Server)
		},
		console: noConsole,
		keep: func(ctx context.Context, o keeper.Options) error {
			m.kept = &o
			if m.ends {
				return o.End(ctx)
			}
			return m.step("keep", o.Device.Path())
		}}
	return m
}

func (m *fakeMachine) step(what, with string) error {
	m.steps = append(m.steps, what+" "+with)
	return m.fails[what]
}

func (m *fakeMachine) done(what string) (steps []string) {
	for _, s := range m.steps {
		if strings.HasPrefix(s, what+" ") {
			steps = append(steps, s)
		}
	}
	return steps
}

// shared is written by a command and by the process that it started, as a terminal is.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// on runs a command line on that machine, against a fake daemon.
func (m *fakeMachine) on(t *testing.T, f *fake, typed string, args ...string) answer {
	t.Helper()
	m.steps, f.asked = nil, nil
	var out bytes.Buffer
	var errs shared
	environment := env(f.run)
	environment.UID = m.uid
	a := &app{hooks: Hooks{Env: environment}, isTerminal: func(stream any) bool { _, in := stream.(*strings.Reader); return in && typed != "" },
		typed: typedLine, hide: func() error { return nil }, machine: m.machine, program: m.program}
	code := a.main(context.Background(), args, strings.NewReader(typed), &out, &errs)
	return answer{code, out.String(), errs.String()}
}

// asks are the routes that the daemon was asked for, without what stands on them in every call.
func (f *fake) asks() (list []string) {
	for _, a := range f.asked {
		method, rest, _ := strings.Cut(a, " ")
		path, _, _ := strings.Cut(rest, " ")
		if method == "POST" {
			path = strings.NewReplacer("/v1/disks/", "", "project=default", "", "?&", "?", "&&", "&").Replace(path)
			list = append(list, strings.TrimRight(path, "?&"))
		}
	}
	return list
}

func wantSteps(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
