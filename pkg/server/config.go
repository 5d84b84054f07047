package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// CreateConfig makes a scaling configuration: of a server, with an image of its system disk that is called like the configuration and goes with it, or of an image.
// The same request again finds what it made.
func (s *Service) CreateConfig(ctx context.Context, request string, spec ConfigSpec) (ScalingConfig, error) {
	if err := checkName(configs.word, spec.Name, maxName); err != nil {
		return ScalingConfig{}, err
	}
	rec := configRecord{head: s.newHead(spec.Project, spec.Name, request)}
	if made, err := configs.isMade(ctx, s.c.Catalog, rec.head); err != nil || made != nil {
		return s.answerConfig(ctx, rec, err)
	}
	if err := s.claim(configs.word+" "+rec.Name, rec.ID, toCreate); err != nil {
		return ScalingConfig{}, err
	}
	err := s.makeConfig(ctx, request, rec, spec)
	s.release(rec.ID)
	return s.answerConfig(ctx, rec, err)
}

func (s *Service) answerConfig(ctx context.Context, rec configRecord, err error) (ScalingConfig, error) {
	if err != nil {
		return ScalingConfig{}, configs.explain(rec.Name, err)
	}
	return s.Config(context.WithoutCancel(ctx), rec.Project, rec.Name)
}

func (s *Service) makeConfig(ctx context.Context, request string, rec configRecord, spec ConfigSpec) error {
	if spec.Server != "" {
		return s.configOfServer(ctx, request, rec, spec)
	}
	if err := s.planConfig(ctx, &rec, spec); err != nil {
		return err
	}
	rec.Status = Available
	return s.reserveConfig(ctx, request, rec)
}

// planConfig is a configuration of an image.
func (s *Service) planConfig(ctx context.Context, rec *configRecord, spec ConfigSpec) (err error) {
	if rec.machine, err = (machine{spec.CPUs, spec.Memory, spec.Network}).withDefaults(); err != nil {
		return err
	}
	image, err := s.c.Volumes.Point(ctx, volume.ImageKind, spec.Project, spec.Image)
	if err != nil {
		return err
	}
	if err := s.allowed(ctx, spec, image); err != nil {
		return err
	}
	if rec.Image, err = uuid.Parse(image.ID); err != nil {
		return err
	}
	rec.ImageName, rec.SystemSize = image.Name, cmp.Or(spec.System.Size, image.Size)
	if err := s.imageUsable(ctx, image); err != nil {
		return refuseFor("system disk", err)
	}
	return s.planData(ctx, rec, spec.Data)
}

// allowed refuses a system disk that is not what the image is (rules A24, A29): members stand on it.
func (s *Service) allowed(ctx context.Context, spec ConfigSpec, image volume.Point) error {
	const next = "leave it out, and the system disks are as the image is"
	sys := spec.System
	switch asked := spec.AskedEncrypted; {
	case !image.Encrypted && (asked != nil && *asked || sys.Key != ""):
		return refusal.New(refusal.Usage, "make an encrypted image of it first: `nbdcrypt image copy "+image.Name+" NAME --encrypted`",
			"image %s is plain, and so are the system disks of servers that stand on it", image.Name)
	case image.Encrypted && asked != nil && !*asked:
		return refusal.New(refusal.Usage, next, "image %s is encrypted, and so are the system disks of servers that stand on it", image.Name)
	case sys.SectorSize != 0 && sys.SectorSize != image.SectorSize:
		return refusal.New(refusal.Usage, next, "image %s has sectors of %d bytes, and so have disks that stand on it", image.Name, image.SectorSize)
	case sys.Size != 0 && (sys.Size < image.Size || sys.Size%int64(image.SectorSize) != 0 || sys.Size > volume.MaxSize):
		return refusal.New(refusal.Usage, "give a size of at least that in whole sectors, or none", "image %s has %d bytes, and a system disk made from it can't have %d", image.Name, image.Size, sys.Size)
	}
	if sys.Key == "" {
		return nil
	}
	key, err := s.c.Keys.Key(ctx, spec.Project, sys.Key)
	if err == nil && key.ID != image.Key.ID {
		err = refusal.New(refusal.Usage, next, "image %s is under another key than %s, and disks that stand on it are under its own", image.Name, key.Alias)
	}
	return err
}

// planData has the data disks' keys by their ids, which stay what they are whatever keys are called later.
func (s *Service) planData(ctx context.Context, rec *configRecord, data []DiskSpec) error {
	if err := checkData(len(data)); err != nil {
		return err
	}
	for i, d := range data {
		what := fmt.Sprintf("data disk %d", i+1)
		made := configDisk{Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted}
		if err := volume.CheckShape(d.Size, d.SectorSize); err != nil {
			return refuseFor(what, err)
		}
		if !d.Encrypted && d.Key != "" {
			return refusal.New(refusal.Usage, "leave out plain, or leave out the key", "%s: a plain disk has no key", what)
		}
		if d.Encrypted {
			key, err := s.tryKey(ctx, rec.Project, d.Key, d.SectorSize)
			if err != nil {
				return refuseFor(what, err)
			}
			made.Key = key
		}
		rec.Data = append(rec.Data, made)
	}
	return nil
}

// configOfServer makes an image of the server's system disk, for the configuration alone.
func (s *Service) configOfServer(ctx context.Context, request string, rec configRecord, spec ConfigSpec) error {
	if spec.Image != "" || len(spec.Data) > 0 || spec.System != (DiskSpec{}) || spec.AskedEncrypted != nil {
		return refusal.New(refusal.Usage, "leave them out, or name an image instead of a server", "the disks of a scaling configuration of a server are as the server's")
	}
	r, err := claimNow(ctx, s, servers, spec.Project, spec.Server, toImage)
	if err != nil {
		return err
	}
	defer s.release(r.ID)
	if err := s.planOfServer(ctx, &rec, r, spec); err != nil {
		return err
	}
	if err := s.reserveConfig(ctx, rec.step("intent"), rec); err != nil {
		return err
	}
	_, err = s.c.Volumes.CreateImage(ctx, rec.step("image"), volume.ImageOf{ID: rec.Image, Project: rec.Project, Disk: r.system().ID.String(), Name: rec.ImageName})
	if err == nil {
		err = s.update(ctx, request, func(t catalog.Txn) error {
			now, err := configs.get(t, rec.ID)
			if err != nil {
				return err
			}
			now.Status = Available
			return errors.Join(s.c.Volumes.MayHold(t, rec.Project, volume.ImageKind, rec.Image), configs.put(t, now))
		})
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) { // else the next start finds out
		_, undo := s.removeConfig(context.WithoutCancel(ctx), "undo-"+uuid.NewString(), rec)
		err = errors.Join(err, undo)
	}
	return err
}

// planOfServer takes over what the server has: of each data disk its size, sectors, attribute and key (rule A35).
func (s *Service) planOfServer(ctx context.Context, rec *configRecord, r serverRecord, spec ConfigSpec) (err error) {
	if err := mayBeSource(r); err != nil {
		return err
	}
	rec.machine, err = machine{cmp.Or(spec.CPUs, r.CPUs), cmp.Or(spec.Memory, r.Memory), cmp.Or(spec.Network, r.Network)}.withDefaults()
	if err != nil {
		return err
	}
	rec.Image, rec.ImageName, rec.Owned = uuid.New(), rec.Name, true
	rec.Source = &volume.Source{Kind: servers.prefix, ID: r.ID, Name: r.Name}
	var data []DiskSpec
	for _, d := range r.Disks {
		disk, err := s.c.Volumes.Get(ctx, r.Project, d.ID.String())
		if err == nil && disk.Key != nil {
			err = disk.Key.May(keystore.Use)
		}
		if err != nil {
			return refuseFor("disk "+d.Name, err)
		}
		if d.Role == SystemRole {
			rec.SystemSize = disk.Size
			continue
		}
		is := DiskSpec{Size: disk.Size, SectorSize: disk.SectorSize, Encrypted: disk.Encrypted}
		if disk.Key != nil {
			is.Key = disk.Key.ID
		}
		data = append(data, is)
	}
	return s.planData(ctx, rec, data)
}

// mayBeSource refuses a server that is not whole, or has nothing to make an image of.
func mayBeSource(r serverRecord) error {
	if r.Status != Stopped {
		return refusal.New(refusal.Busy, wait, "server %s is not whole", r.Name)
	}
	if r.system() == nil {
		return refusal.New(refusal.Busy, "give it one with `nbdcrypt server attach "+r.Name+" DISK --system`", "server %s has no system disk", r.Name)
	}
	return nil
}

// reserveConfig puts a configuration into the catalog, and holds its image. One that is not made for it has to be there.
func (s *Service) reserveConfig(ctx context.Context, request string, rec configRecord) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		made, err := configs.madeBefore(t, rec.head)
		if err == nil && made != nil {
			err = refusal.New(refusal.Busy, wait, "scaling configuration %s was made by the same request just now", rec.Name)
		}
		if err == nil && !rec.Owned {
			err = s.c.Volumes.MayHold(t, rec.Project, volume.ImageKind, rec.Image)
		}
		if err != nil {
			return err
		}
		return errors.Join(configs.add(t, rec), t.Put(imageConfigKey(rec.Image, rec.ID), nil))
	})
}

// DeleteConfig ends a scaling configuration that no group uses, and the image that was made for it, whose layer it tells as volume.DeleteImage does; the zero
// UUID where the image stays.
func (s *Service) DeleteConfig(ctx context.Context, request, project, ref string) (layer uuid.UUID, err error) {
	rec, err := claimNow(ctx, s, configs, project, ref, toDelete)
	if err != nil {
		return uuid.Nil, err
	}
	defer s.release(rec.ID)
	layer, err = s.removeConfig(context.WithoutCancel(ctx), request, rec)
	return layer, configs.explain(rec.Name, err)
}

// removeConfig lets go of the image, which goes if it was made for the configuration, and then takes the configuration away. It may be asked again where it was cut off.
func (s *Service) removeConfig(ctx context.Context, request string, rec configRecord) (layer uuid.UUID, err error) {
	err = s.update(ctx, request, func(t catalog.Txn) error { return letGo(t, rec) })
	if err == nil && rec.Owned {
		layer, err = s.removeImage(ctx, rec)
	}
	if err != nil {
		return uuid.Nil, err
	}
	return layer, s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) error { return configs.drop(t, rec.head) })
}

// removeImage deletes the image of a configuration that goes. Where another has come to need it meanwhile, it stays: it is an image like any other then.
func (s *Service) removeImage(ctx context.Context, rec configRecord) (layer uuid.UUID, err error) {
	layer, err = s.c.Volumes.DeleteImage(ctx, "delete-"+uuid.NewString(), rec.Project, rec.Image.String())
	if refusal.CodeOf(err) == refusal.NotFound {
		return uuid.Nil, nil
	}
	if refusal.CodeOf(err) != refusal.Busy {
		return layer, err
	}
	needed := s.c.Catalog.View(ctx, func(r catalog.Reader) error { return heldImage(r, rec.Image, rec.ID) })
	if refusal.CodeOf(needed) == refusal.Busy {
		return uuid.Nil, nil
	}
	return uuid.Nil, err
}

// letGo marks a configuration as one that goes, if nobody needs it, or the image that goes with it.
func letGo(t catalog.Txn, rec configRecord) error {
	name, more, err := behind(t, groups, groupsOf(rec.ID), uuid.Nil)
	if err != nil {
		return err
	}
	if name != "" {
		return refusal.New(refusal.Busy, "delete that first with `nbdcrypt scaling group delete "+name+"`", "scaling configuration %s is that of group %s%s", rec.Name, name, more)
	}
	now, err := configs.get(t, rec.ID)
	if err != nil {
		return err
	}
	if now.Owned && now.Status == Available {
		if err := heldImage(t, rec.Image, rec.ID); err != nil {
			return refuseFor("scaling configuration "+rec.Name+" can't be deleted", err)
		}
	}
	now.Status = Deleting
	return errors.Join(configs.put(t, now), t.Delete(imageConfigKey(rec.Image, rec.ID)))
}
