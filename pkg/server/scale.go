package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// names tells whether a member is part of a scaling that goes on.
func (c *scaling) names(number int) bool { return c != nil && slices.Contains(c.Members, number) }

// grow plans n more members. Their numbers are used up, whatever becomes of them.
func (g *groupRecord) grow(request string, n int) {
	g.Scaling = &scaling{Request: request, Grows: true, Members: []int{}}
	for ; n > 0; n-- {
		g.Scaling.Members = append(g.Scaling.Members, g.Next)
		g.Next++
	}
}

// done ends what went on.
func (g *groupRecord) done() {
	g.Status, g.Scaling, g.Last = Available, nil, g.Scaling
}

// Leaving are the members that a scaling to n deletes, the newest first.
func (s *Service) Leaving(ctx context.Context, project, ref string, n int) (list []Server, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		g, err := groups.find(r, project, ref)
		if err != nil {
			return err
		}
		all, err := members(r, g)
		for _, m := range leaving(all, g, n) {
			list = append(list, s.describe(r, m, map[uuid.UUID]Named{}))
		}
		return err
	})
	return list, groups.explain(ref, err)
}

// leaving are the members that go at a scaling to n, the newest first. Those that a scaling which was cut off names go anyway.
func leaving(all []serverRecord, g groupRecord, n int) (list []serverRecord) {
	stay := len(all)
	for _, m := range all {
		if g.Scaling.names(m.Number) {
			stay--
		}
	}
	for _, m := range slices.Backward(all) {
		if g.Scaling.names(m.Number) {
			list = append(list, m)
		} else if stay > n {
			list = append(list, m)
			stay--
		}
	}
	return list
}

// Scale makes or deletes members until the group has n. What it made it deletes again where it can't go on; members that leave have to be stopped. progress is
// told of members; it may be nil. The same request again finds what it did.
func (s *Service) Scale(ctx context.Context, request, project, ref string, n int, progress func(done, total int64)) (Scaled, error) {
	g, err := claimNow(ctx, s, groups, project, ref, toScale)
	if err != nil {
		return Scaled{}, err
	}
	if g.Scaling != nil || g.Last == nil || g.Last.Request != request {
		g, err = s.scale(ctx, request, g, n, progress)
	}
	s.release(g.ID)
	if err != nil {
		return Scaled{}, groups.explain(g.Name, err)
	}
	return s.scaled(context.WithoutCancel(ctx), request, g)
}

// scaled tells what a scaling did.
func (s *Service) scaled(ctx context.Context, request string, g groupRecord) (v Scaled, err error) {
	v.Group, err = s.Group(ctx, g.Project, g.ID.String())
	if g.Last == nil || g.Last.Request != request {
		return v, err
	}
	for _, number := range g.Last.Members {
		if name := memberName(g.Name, number); g.Last.Grows {
			v.Made = append(v.Made, name)
		} else {
			v.Deleted = append(v.Deleted, name)
		}
	}
	return v, err
}

func (s *Service) scale(ctx context.Context, request string, g groupRecord, n int, progress func(done, total int64)) (groupRecord, error) {
	if g.Status != Available {
		return g, refusal.New(refusal.Busy, "delete it with `nbdcrypt scaling group delete "+g.Name+"`; the daemon does so too when it starts", "group %s is not whole", g.Name)
	}
	if n < g.Min || n > g.Max {
		return g, refusal.New(refusal.Usage, fmt.Sprintf("use %d to %d", g.Min, g.Max), "group %s can't have %d servers", g.Name, n)
	}
	g, err := s.settle(ctx, g)
	if err != nil {
		return g, err
	}
	all, err := s.membersNow(ctx, g)
	switch {
	case err != nil || n == len(all):
		return g, err
	case n < len(all):
		return s.shrink(ctx, request, g, leaving(all, g, n), progress)
	}
	return s.growBy(ctx, request, g, n-len(all), progress)
}

// settle ends a scaling that was cut off: the members that it names go.
func (s *Service) settle(ctx context.Context, g groupRecord) (groupRecord, error) {
	if g.Scaling == nil {
		return g, nil
	}
	all, err := s.membersNow(ctx, g)
	if err != nil {
		return g, err
	}
	_, free, err := s.claimMembers(ctx, slices.DeleteFunc(all, func(m serverRecord) bool { return !g.Scaling.names(m.Number) }))
	if err != nil {
		return g, err
	}
	defer free()
	return s.cut(context.WithoutCancel(ctx), "settle-"+uuid.NewString(), g, nil)
}

// cut deletes the members that the group's scaling names, and ends it: one that shrinks is done then, one that grows never was.
func (s *Service) cut(ctx context.Context, request string, g groupRecord, progress func(done, total int64)) (groupRecord, error) {
	all, err := s.membersNow(ctx, g)
	if err != nil {
		return g, err
	}
	going := slices.DeleteFunc(all, func(m serverRecord) bool { return !g.Scaling.names(m.Number) })
	slices.SortFunc(going, func(a, b serverRecord) int { return cmp.Compare(b.Number, a.Number) })
	if deleted, err := s.removeMembers(ctx, going, progress); err != nil {
		return g, refusal.New(refusal.CodeOf(err), "see to that, then scale it again; the daemon goes on with it too when it starts",
			"group %s: %d of %d servers that are to go are deleted: %w", g.Name, len(deleted), len(going), refusal.From(err))
	}
	if g.Scaling.Grows {
		g.Scaling = nil
	} else {
		g.done()
	}
	return g, s.putGroup(ctx, request, g)
}

func (s *Service) shrink(ctx context.Context, request string, g groupRecord, list []serverRecord, progress func(done, total int64)) (groupRecord, error) {
	_, free, err := s.claimMembers(ctx, list)
	if err != nil {
		return g, err
	}
	defer free()
	g.Scaling = &scaling{Request: request}
	for _, m := range list {
		g.Scaling.Members = append(g.Scaling.Members, m.Number)
	}
	if err := s.putGroup(ctx, "intent-"+uuid.NewString(), g); err != nil {
		return g, err
	}
	return s.cut(context.WithoutCancel(ctx), request, g, progress)
}

// claimMembers has members for their group alone, and answers them as they are then: who gave one a disk or took one from it just before was told so. Those that run
// are refused, and those whose disks are in use: all of them are named.
func (s *Service) claimMembers(ctx context.Context, list []serverRecord) (now []serverRecord, free func(), err error) {
	var claimed []uuid.UUID
	free = func() {
		for _, id := range claimed {
			s.release(id)
		}
	}
	var running []string
	for _, m := range list {
		if err = s.claim("server "+m.Name, m.ID, toDelete); err != nil {
			break
		}
		claimed = append(claimed, m.ID)
		if m, err = servers.lookUp(ctx, s.c.Catalog, m.Project, m.ID.String()); err != nil {
			break
		}
		now = append(now, m)
		if s.runOf(m.ID) != nil {
			running = append(running, m.Name)
		} else if err = s.disksMayGo(ctx, m); err != nil {
			break
		}
	}
	if err == nil && len(running) > 0 {
		err = refusal.New(refusal.Busy, "stop what is to be deleted with `nbdcrypt server stop`", "servers that are to go run: %s", few(running))
	}
	if err != nil {
		free()
		return nil, nil, err
	}
	return now, free, nil
}

// removeMembers deletes members in the order of the list, and names those that are gone.
func (s *Service) removeMembers(ctx context.Context, list []serverRecord, progress func(done, total int64)) (deleted []string, err error) {
	for i, m := range list {
		if err := s.remove(ctx, m); err != nil {
			return deleted, refuseFor("server "+m.Name, servers.explain(m.Name, err))
		}
		deleted = append(deleted, m.Name)
		tell(progress, i+1, len(list))
	}
	return deleted, nil
}

func tell(progress func(done, total int64), done, total int) {
	if progress != nil {
		progress(int64(done), int64(total))
	}
}

// growBy makes n members, or takes back those that it made.
func (s *Service) growBy(ctx context.Context, request string, g groupRecord, n int, progress func(done, total int64)) (groupRecord, error) {
	if g.Next > maxNumber-n {
		return g, refusal.New(refusal.Busy, "make another group of its configuration", "group %s has used all numbers that names of servers have room for", g.Name)
	}
	c, err := s.usableConfig(ctx, g.Project, g.Config.String())
	if err != nil {
		return g, err
	}
	before := g
	g.grow(request, n)
	if err := s.putGroup(ctx, "intent-"+uuid.NewString(), g); err != nil {
		return before, err
	}
	free, err := s.makeMembers(ctx, g, c, progress)
	defer free()
	done := g
	if err == nil {
		done.done()
		err = s.putGroup(ctx, request, done)
	}
	if err == nil || errors.Is(err, catalog.ErrUnknownOutcome) { // then the next start finds out
		return done, err
	}
	why := refuseFor("group "+g.Name+" could not be scaled", err)
	g, undo := s.cut(context.WithoutCancel(ctx), "undo-"+uuid.NewString(), g, nil)
	if undo != nil {
		return g, refuseUndo(why, undo, "what was made", "see to that, then scale it again; the daemon goes on with it too when it starts")
	}
	r := refusal.From(why)
	return g, refusal.New(r.Code, r.Hint, "%w; what was made is deleted again, and the group is as it was", r)
}

// makeMembers makes the members that the group's scaling names, each as Create makes a server. Until free nobody else does anything to them: they may have to go again.
func (s *Service) makeMembers(ctx context.Context, g groupRecord, c configRecord, progress func(done, total int64)) (free func(), err error) {
	var claimed []uuid.UUID
	free = func() {
		for _, id := range claimed {
			s.release(id)
		}
	}
	image, err := s.c.Volumes.Point(ctx, volume.ImageKind, c.Project, c.Image.String())
	if err != nil {
		return free, err
	}
	for i, number := range g.Scaling.Members {
		m := s.newMember(g, c, image, number)
		if err := s.claim(servers.word+" "+m.Name, m.ID, toCreate); err != nil {
			return free, err
		}
		claimed = append(claimed, m.ID)
		if err := s.make(ctx, m.step("server"), m, volume.Work{}); err != nil {
			return free, refuseFor(fmt.Sprintf("server %s, after %d of %d", m.Name, i, len(g.Scaling.Members)), err)
		}
		tell(progress, i+1, len(g.Scaling.Members))
	}
	return free, nil
}

// newMember is a server as the configuration says: its system disk stands on the image, with a DEK of its own.
func (s *Service) newMember(g groupRecord, c configRecord, image volume.Point, number int) newServer {
	m := newServer{serverRecord: serverRecord{head: s.newHead(g.Project, memberName(g.Name, number), fmt.Sprintf("%s/%d", g.Scaling.Request, number)), machine: c.machine, Group: g.ID, Number: number}}
	m.of(image, volume.Spec{Size: c.SystemSize, From: &volume.From{Kind: volume.ImageKind, Ref: image.ID}})
	for _, d := range c.Data {
		m.add(DataRole, volume.Spec{Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted, Key: d.Key})
	}
	return m
}
