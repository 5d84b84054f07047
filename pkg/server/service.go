// Package server is virtual machines as records: which disks they have, and which scaling configuration and group they come from; how they are made, changed
// and deleted without a crash leaving half of one; and which of them run, as far as whoever has a lease of their disks says. It runs nothing itself.
package server

import (
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/volume"
)

// Config is what servers are made of.
type Config struct {
	Catalog catalog.Store // sealed
	Volumes *volume.Service
	Keys    *keystore.Store
	Clock   clock.Clock
	Log     *slog.Logger
}

// Service holds the servers of one state directory. Its methods may be called from many goroutines.
type Service struct {
	c Config
}

var errNotBuilt = errors.New("server: not built yet")

// Open takes over the servers and finishes what a crash has left: what is half made or half deleted goes. Records that can't be read do not keep it from that:
// Unreadable tells them. The disks are open before.
func Open(ctx context.Context, c Config) (*Service, error) { return &Service{c: c}, nil }

// Unreadable is what Open met and could not read, or not finish.
func (s *Service) Unreadable() []error { return nil }

// Finished says what Open ended that a crash had cut off.
func (s *Service) Finished() []string { return nil }

// Held tells what keeps a disk ("disk") or an image ("image") from being deleted, for volume.Config.Held.
func Held(r catalog.Reader, kind string, id uuid.UUID) error { return nil }

// Count is how many servers, scaling configurations and groups a project has, those that can't be read too.
func (s *Service) Count(ctx context.Context, project string) (servers, configs, groups int, err error) {
	return 0, 0, 0, errNotBuilt
}

// Get tells about one server.
func (s *Service) Get(ctx context.Context, project, ref string) (Server, error) {
	return Server{}, errNotBuilt
}

// List calls fn with every server of a project, in the order of their names. One whose record can't be read is among them with the status Damaged.
func (s *Service) List(ctx context.Context, project string, fn func(Server) error) error {
	return errNotBuilt
}

// OfDisk is the server that has a disk, nil where none has, and the disk's role there.
func (s *Service) OfDisk(ctx context.Context, disk uuid.UUID) (of *Server, role string, err error) {
	return nil, "", errNotBuilt
}

// Create makes a server with its disks, or leaves nothing behind. The same request again finds what it made.
func (s *Service) Create(ctx context.Context, request string, spec Spec, w volume.Work) (Server, error) {
	return Server{}, errNotBuilt
}

// Delete ends a server that is stopped, and its disks with their snapshots unless keepDisks.
func (s *Service) Delete(ctx context.Context, request, project, ref string, keepDisks bool) error {
	return errNotBuilt
}

// AttachDisk gives a server a disk, in the records alone: PlanAttach, Commit and Free.
func (s *Service) AttachDisk(ctx context.Context, request, project, ref, disk string, system bool) (Server, error) {
	return Server{}, errNotBuilt
}

// DetachDisk takes a disk from a server, in the records alone: PlanDetach, Commit and Free.
func (s *Service) DetachDisk(ctx context.Context, request, project, ref, disk string) (Server, error) {
	return Server{}, errNotBuilt
}

// Plan is a change of a server's disks that is allowed as things are. Nothing else is done to the server until Free.
type Plan struct {
	Server Server // as it was
	Disk   Disk
	// Running tells that the server has a run, whose QEMU has to be told.
	Running bool
}

// PlanAttach begins to give a server a disk. What speaks against it is refused here, so that nothing is plugged in vain.
func (s *Service) PlanAttach(ctx context.Context, project, ref, disk string, system bool) (*Plan, error) {
	return nil, errNotBuilt
}

// PlanDetach begins to take a disk from a server.
func (s *Service) PlanDetach(ctx context.Context, project, ref, disk string) (*Plan, error) {
	return nil, errNotBuilt
}

// Commit writes the change.
func (p *Plan) Commit(ctx context.Context, request string) (Server, error) {
	return Server{}, errNotBuilt
}

// Free lets others change the server, whether the change was written or not.
func (p *Plan) Free() {}

// Begin puts a server into starting, until End. Refused where it is not stopped, has no system disk, or goes away with a scaling.
func (s *Service) Begin(ctx context.Context, project, ref string) (*Run, error) {
	return nil, errNotBuilt
}

// Run is a server's run.
type Run struct{}

// Server is the server as it was when the run began.
func (r *Run) Server() Server { return Server{} }

// Running tells that QEMU runs.
func (r *Run) Running(info RunInfo) {}

// Stopping tells that the run is about to end.
func (r *Run) Stopping() {}

// Paused says why the guest stands still; empty, that it goes on.
func (r *Run) Paused(why string) {}

// Failing says why the run can't come to its end, though its disks are to be detached.
func (r *Run) Failing(why string) {}

// Left takes a disk from the server that the guest has given away, once nothing else is done to it.
func (r *Run) Left(ctx context.Context, request string, disk uuid.UUID) (Server, error) {
	return Server{}, errNotBuilt
}

// End ends the run, and keeps why in memory.
func (r *Run) End(why string) {}

// CreateConfig makes a scaling configuration: of a server, with an image of its system disk that is called and goes like the configuration, or of an image.
func (s *Service) CreateConfig(ctx context.Context, request string, spec ConfigSpec) (ScalingConfig, error) {
	return ScalingConfig{}, errNotBuilt
}

// Config tells about one scaling configuration.
func (s *Service) Config(ctx context.Context, project, ref string) (ScalingConfig, error) {
	return ScalingConfig{}, errNotBuilt
}

// Configs calls fn with every scaling configuration of a project, in the order of their names.
func (s *Service) Configs(ctx context.Context, project string, fn func(ScalingConfig) error) error {
	return errNotBuilt
}

// DeleteConfig ends a scaling configuration that no group uses, and the image that was made for it, whose layer it tells as volume.DeleteImage does; the zero
// UUID where the image stays.
func (s *Service) DeleteConfig(ctx context.Context, request, project, ref string) (layer uuid.UUID, err error) {
	return uuid.Nil, errNotBuilt
}

// ConfigsUnder are a project's scaling configurations with a disk under a key, those of whose image that is the key too.
func (s *Service) ConfigsUnder(ctx context.Context, project, keyID string) ([]Named, error) {
	return nil, errNotBuilt
}

// Preflight refuses a scaling configuration from which no server can be made now, and names the disk and the key that are in the way.
func (s *Service) Preflight(ctx context.Context, project, config string) error { return errNotBuilt }

// CreateGroup makes a scaling group with its first members, or leaves nothing behind. progress is told of members; it may be nil.
func (s *Service) CreateGroup(ctx context.Context, request string, spec GroupSpec, progress func(done, total int64)) (Group, error) {
	return Group{}, errNotBuilt
}

// Group tells about one scaling group.
func (s *Service) Group(ctx context.Context, project, ref string) (Group, error) {
	return Group{}, errNotBuilt
}

// Groups calls fn with every scaling group of a project, in the order of their names.
func (s *Service) Groups(ctx context.Context, project string, fn func(Group) error) error {
	return errNotBuilt
}

// Leaving are the members that a scaling to n deletes, the newest first.
func (s *Service) Leaving(ctx context.Context, project, ref string, n int) ([]Server, error) {
	return nil, errNotBuilt
}

// Scale makes or deletes members until the group has n. What it made it deletes again where it can't go on; members that leave have to be stopped. progress is
// told of members; it may be nil.
func (s *Service) Scale(ctx context.Context, request, project, ref string, n int, progress func(done, total int64)) (Scaled, error) {
	return Scaled{}, errNotBuilt
}

// DeleteGroup ends a scaling group with its members, which have to be stopped, and names those. progress is told of members; it may be nil.
func (s *Service) DeleteGroup(ctx context.Context, request, project, ref string, progress func(done, total int64)) (deleted []string, err error) {
	return nil, errNotBuilt
}
