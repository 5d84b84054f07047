package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// CreateGroup makes a scaling group with its first members, or leaves nothing behind. progress is told of members; it may be nil. The same request again finds what
// it made.
func (s *Service) CreateGroup(ctx context.Context, request string, spec GroupSpec, progress func(done, total int64)) (Group, error) {
	if err := checkGroup(spec); err != nil {
		return Group{}, err
	}
	g := groupRecord{head: s.newHead(spec.Project, spec.Name, request), Min: spec.Min, Max: spec.Max, Next: 1}
	if made, err := groups.isMade(ctx, s.c.Catalog, g.head); err != nil || made != nil {
		return s.answerGroup(ctx, g, err)
	}
	if err := s.claim(groups.word+" "+g.Name, g.ID, toCreate); err != nil {
		return Group{}, err
	}
	err := s.makeGroup(ctx, request, g, spec.Config, progress)
	s.release(g.ID)
	return s.answerGroup(ctx, g, err)
}

func checkGroup(spec GroupSpec) error {
	if err := checkName(groups.word, spec.Name, maxGroupName); err != nil {
		return err
	}
	switch {
	case spec.Max < 1 || spec.Max > MaxMembers:
		return refusal.New(refusal.Usage, fmt.Sprintf("use 1 to %d", MaxMembers), "a scaling group can't have a maximum of %d servers", spec.Max)
	case spec.Min < 0 || spec.Min > spec.Max:
		return refusal.New(refusal.Usage, fmt.Sprintf("use 0 to %d, the maximum", spec.Max), "a scaling group can't have a minimum of %d servers", spec.Min)
	}
	return nil
}

func (s *Service) answerGroup(ctx context.Context, g groupRecord, err error) (Group, error) {
	if err != nil {
		return Group{}, groups.explain(g.Name, err)
	}
	return s.Group(context.WithoutCancel(ctx), g.Project, g.Name)
}

// makeGroup begins with a group that is being created, and has the members that it will have written down as its scaling: cut off, they go with it.
func (s *Service) makeGroup(ctx context.Context, request string, g groupRecord, config string, progress func(done, total int64)) error {
	rec, err := s.usableConfig(ctx, g.Project, config)
	if err != nil {
		return err
	}
	g.Config = rec.ID
	g.grow(request, g.Min)
	if err := s.reserveGroup(ctx, g); err != nil {
		return err
	}
	free, err := s.makeMembers(ctx, g, rec, progress)
	defer free()
	if err == nil {
		g.done()
		err = s.putGroup(ctx, request, g)
	}
	if err == nil || errors.Is(err, catalog.ErrUnknownOutcome) { // then the next start finds out
		return err
	}
	if undo := s.removeGroup(context.WithoutCancel(ctx), g); undo != nil {
		return refuseUndo(err, undo, "what was made of group "+g.Name, "`nbdcrypt scaling group delete "+g.Name+"` ends what is left of it, and so does the daemon when it starts")
	}
	return refuseFor("group "+g.Name+" can't be made, and nothing is left of it", err)
}

// refuseUndo says that what failed could not be taken back.
func refuseUndo(err, undo error, what, next string) error {
	why := refusal.From(err)
	return refusal.New(why.Code, next, "%w; and %s could not be deleted: %w", why, what, undo)
}

// reserveGroup writes the intent, and holds the configuration, which has to be there.
func (s *Service) reserveGroup(ctx context.Context, g groupRecord) error {
	return s.update(ctx, g.step("intent"), func(t catalog.Txn) error {
		made, err := groups.madeBefore(t, g.head)
		if err == nil && made != nil {
			err = refusal.New(refusal.Busy, wait, "group %s was made by the same request just now", g.Name)
		}
		if err != nil {
			return err
		}
		c, err := configs.get(t, g.Config)
		if err != nil {
			return err
		}
		if c.Status != Available {
			return refusal.New(refusal.Busy, wait, "scaling configuration %s is %s", c.Name, c.Status)
		}
		return errors.Join(groups.add(t, g), t.Put(configGroupKey(g.Config, g.ID), nil))
	})
}

func (s *Service) putGroup(ctx context.Context, request string, g groupRecord) error {
	return s.update(ctx, request, func(t catalog.Txn) error { return groups.put(t, g) })
}

// members are the servers of a group, the oldest first.
func members(r catalog.Reader, g groupRecord) (list []serverRecord, err error) {
	err = catalog.Each(r, membersOf(g.ID), func(p catalog.Pair) error {
		id, err := uuid.Parse(string(p.Value))
		if err != nil {
			return fmt.Errorf("%w: record %q names %q", catalog.ErrDamaged, p.Key, p.Value)
		}
		m, err := servers.get(r, id)
		if errors.Is(err, catalog.ErrNotFound) {
			return fmt.Errorf("%w: record %q names server %s, whose record is missing", catalog.ErrDamaged, p.Key, id)
		}
		list = append(list, m)
		return err
	})
	return list, err
}

// membersNow is members in a view of its own.
func (s *Service) membersNow(ctx context.Context, g groupRecord) (list []serverRecord, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		list, err = members(r, g)
		return err
	})
	return list, err
}

// Group tells about one scaling group.
func (s *Service) Group(ctx context.Context, project, ref string) (v Group, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		g, err := groups.find(r, project, ref)
		if err == nil {
			v = s.describeGroup(r, g)
		}
		return err
	})
	return v, groups.explain(ref, err)
}

// Groups calls fn with every scaling group of a project, in the order of their names. One whose record can't be read is among them with the status Damaged.
func (s *Service) Groups(ctx context.Context, project string, fn func(Group) error) error {
	return explainList(s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return groups.walk(r, project, func(g groupRecord, h head, err error) error {
			if err != nil {
				return fn(Group{ID: h.ID, Name: h.Name, Project: project, Status: Damaged, Warnings: []string{err.Error()}})
			}
			return fn(s.describeGroup(r, g))
		})
	}))
}

func (s *Service) describeGroup(r catalog.Reader, g groupRecord) Group {
	v := Group{ID: g.ID, Name: g.Name, Project: g.Project, Status: s.statusOf(g.head), Config: Named{ID: g.Config}, Min: g.Min, Max: g.Max, Created: g.Created}
	if c, err := configs.get(r, g.Config); err == nil {
		v.Config.Name = c.Name
	} else {
		v.Warnings = append(v.Warnings, "its scaling configuration can't be read: "+err.Error())
	}
	list, err := members(r, g)
	if err != nil {
		v.Warnings = append(v.Warnings, "its members can't all be read: "+err.Error())
	}
	for _, m := range list {
		v.Members = append(v.Members, Member{m.ID, m.Name, s.status(m)})
	}
	switch {
	case v.Status == Error:
		v.Warnings = append(v.Warnings, "it is not whole: `nbdcrypt scaling group delete "+g.Name+"` ends it, and so does the daemon when it starts")
	case g.Scaling != nil && !s.isBusy(g.ID):
		v.Warnings = append(v.Warnings, "a scaling was cut off: the next one ends it, and so does the daemon when it starts")
	}
	return v
}

func (s *Service) isBusy(id uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[id] != ""
}

// DeleteGroup ends a scaling group with its members, which have to be stopped, and names those. progress is told of members; it may be nil.
func (s *Service) DeleteGroup(ctx context.Context, request, project, ref string, progress func(done, total int64)) (deleted []string, err error) {
	g, err := claimNow(ctx, s, groups, project, ref, toDelete)
	if err != nil {
		return nil, err
	}
	defer s.release(g.ID)
	list, err := s.membersNow(ctx, g)
	if err != nil {
		return nil, groups.explain(g.Name, err)
	}
	list, free, err := s.claimMembers(ctx, list)
	if err != nil {
		return nil, err
	}
	defer free()
	err = s.update(ctx, request, func(t catalog.Txn) error {
		now, err := groups.get(t, g.ID)
		if err != nil {
			return err
		}
		now.Status = Deleting
		return groups.put(t, now)
	})
	if err != nil && !isFull(err) { // deleting is how people make room
		return nil, groups.explain(g.Name, err)
	}
	deleted, err = s.removeMembers(context.WithoutCancel(ctx), list, progress)
	if err == nil {
		err = s.removeGroup(context.WithoutCancel(ctx), g)
	}
	if err != nil {
		return deleted, refusal.New(refusal.CodeOf(err), "see to that, then delete it again", "group %s is deleted in part, %d of %d servers: %w", g.Name, len(deleted), len(list), refusal.From(groups.explain(g.Name, err)))
	}
	return deleted, nil
}

// removeGroup deletes the members that there are of a group, and then the group. It may be asked again where it was cut off.
func (s *Service) removeGroup(ctx context.Context, g groupRecord) error {
	list, err := s.membersNow(ctx, g)
	if err == nil {
		_, err = s.removeMembers(ctx, list, nil)
	}
	if err != nil {
		return err
	}
	return s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) error {
		return errors.Join(groups.drop(t, g.head), t.Delete(configGroupKey(g.Config, g.ID)))
	})
}
