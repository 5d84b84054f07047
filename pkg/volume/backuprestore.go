package volume

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Restoring is a disk that is being made from a backup. It is there, with the status that says so, and Run ends it.
type Restoring struct {
	s     *Service
	work  Work
	chain []*openedBackup // the full one first
	files []heldCipher    // of each
	newDisk
	// made is a disk that the same request had made before: then there is nothing to do.
	made  *diskRecord
	frees []func()
}

// RestoreAs tells what a disk is by itself that is made of a backup: encrypted, and under which key, as the backup is. Those of a backup whose key
// is not here are plain to choose.
func (s *Service) RestoreAs(ctx context.Context, project, ref string) (encrypted bool, key string, err error) {
	p, err := s.lookUpBackup(ctx, project, ref)
	return p.Encrypted, p.Key, err
}

// BeginRestore reserves the disk that is to be made of a backup, encrypted or plain and under any key, as spec says (rule A28). Where spec has no
// size or sector size, the disk has the backup's. All keys are opened first: one that forbids it does so here.
func (s *Service) BeginRestore(ctx context.Context, request, ref string, spec Spec, released func(keystore.Holder, *keystore.KeyVersionRef) error) (*Restoring, error) {
	p, err := s.lookUpBackup(ctx, spec.Project, ref)
	if err != nil {
		return nil, err
	}
	if err := p.restores(&spec); err != nil {
		return nil, err
	}
	r := &Restoring{s: s, work: Work{Released: released}}
	if err := r.begin(ctx, request, p, spec); err != nil {
		r.free()
		return nil, err
	}
	return r, nil
}

func (r *Restoring) begin(ctx context.Context, request string, p pointRecord, spec Spec) error {
	s := r.s
	chain, done, err := s.chainOf(ctx, p)
	if err != nil {
		return err
	}
	r.chain, r.frees = chain, append(r.frees, done)
	if err := r.unwrapFiles(ctx); err != nil {
		return err
	}
	source := &Source{Kind: BackupKind, ID: p.ID, Name: p.Name}
	if r.newDisk, err = s.draw(ctx, request, spec, RestoringBackup, source); err != nil {
		return err
	}
	if err := s.claim(r.disk, toRestore); err != nil {
		return err
	}
	r.frees = append(r.frees, func() { s.release(r.disk) })
	r.made, err = s.reserve(ctx, request, r.newDisk)
	return err
}

// free lets go of backups, keys and the disk.
func (r *Restoring) free() {
	for _, f := range r.files {
		wipeFile(f)
	}
	for _, f := range r.frees {
		f()
	}
}

// restores refuses what can't be made of a backup.
func (p pointRecord) restores(spec *Spec) error {
	if spec.SectorSize == 0 {
		spec.SectorSize = p.SectorSize
	}
	if spec.Size == 0 {
		spec.Size = p.Size
	}
	if spec.Size < p.Size {
		return refusal.New(refusal.Usage, "leave --size out, or give more", "backup %s is of a disk of %d bytes, which does not fit into %d", p.Name, p.Size, spec.Size)
	}
	return checkSpec(*spec)
}

// Run verifies all of the chain, and only then writes the disk. Cut off or failed, it leaves nothing.
func (r *Restoring) Run(ctx context.Context, request string, progress func(done, total int64)) (Disk, error) {
	r.work.Progress = progress
	made, err := r.run(ctx, request)
	return r.s.describe(context.WithoutCancel(ctx), made, explain(made.Name, err))
}

func (r *Restoring) run(ctx context.Context, request string) (diskRecord, error) {
	defer r.free()
	if r.made != nil {
		return *r.made, nil
	}
	err := r.build(ctx, request)
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) { // of that the next start finds out
		err = errors.Join(err, r.takeBack(ctx))
	}
	made := r.disk
	made.Status = Available
	return made, err
}

// Abandon takes back what was begun, in the place of Run.
func (r *Restoring) Abandon(ctx context.Context) error {
	defer r.free()
	if r.made != nil {
		return nil
	}
	return r.takeBack(ctx)
}

func (r *Restoring) takeBack(ctx context.Context) error {
	return r.s.remove(context.WithoutCancel(ctx), r.disk)
}

// unwrapFiles opens the DEK of each file: a key that forbids it does so before anything is read.
func (r *Restoring) unwrapFiles(ctx context.Context) error {
	for _, o := range r.chain {
		if o.pointRecord.Encrypted && o.Backup.Store != r.s.Keys.ID() {
			return refusal.New(refusal.KeyForbids, "restore it there", "backup %s is of store %s, and its key is not here",
				o.pointRecord.Name, o.Backup.Store)
		}
		held, key, err := r.s.fileCipher(ctx, o.pointRecord)
		if err != nil {
			return err
		}
		r.files = append(r.files, held)
		if key != nil && r.work.Released != nil {
			if err := r.work.Released(o.holder(), key); err != nil {
				return err
			}
		}
	}
	return nil
}

// build verifies, writes, and then has the disk be there.
func (r *Restoring) build(ctx context.Context, request string) error {
	data, read := r.sizes()
	if err := verifyChain(ctx, r.chain, func(done, _ int64) { r.work.progress(done, read+data) }); err != nil {
		return err
	}
	r.fill = func(st *Stack) error {
		return r.write(ctx, st, func(done int64) { r.work.progress(read+done, read+data) })
	}
	return r.s.build(ctx, request, r.newDisk)
}

// sizes are how many bytes of data all files have, and how many bytes they are.
func (r *Restoring) sizes() (data, read int64) {
	for _, o := range r.chain {
		data, read = data+o.Backup.Data, read+o.Backup.Length
	}
	return data, read
}

// write writes one backup after the other over the new disk, the full one first.
func (r *Restoring) write(ctx context.Context, st *Stack, progress func(done int64)) error {
	before := int64(0)
	for i, o := range r.chain {
		zero := func(off, n int64) error {
			if n = min(n, r.disk.Size-off); n <= 0 {
				return nil
			}
			return st.Device.TrimAt(off, n)
		}
		data := takeInto(st.Device, r.disk.Size, r.files[i], o.pointRecord.SectorSize)
		err := backup.Restore(ctx, o.file, o.Verified, data, zero, func(n int64) { progress(before + n) })
		if err != nil {
			return inBackup(o.pointRecord, fmt.Errorf("restoring %s: %w", o.pointRecord.Name, err))
		}
		before += o.Backup.Data
	}
	return nil
}
