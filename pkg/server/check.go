package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

const restore = "restore the state directory from a backup"

// Check holds the records of servers, configurations and groups and their indexes against each other and against the disks and images, as they are at one moment: those of a
// project, or of all where it is empty. What is being made or deleted is not looked at.
func (s *Service) Check(ctx context.Context, project string, found func(volume.Problem)) error {
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		k := &checking{s: s, r: r, project: project, tell: found}
		return errors.Join(checkKind(k, servers, k.server), checkKind(k, configs, k.config), checkKind(k, groups, k.group), k.disks(), k.members())
	})
}

// checking is one Check.
type checking struct {
	s       *Service
	r       catalog.Reader
	project string
	tell    func(volume.Problem)
}

// of tells whether a project is looked at.
func (k *checking) of(project string) bool { return k.project == "" || k.project == project }

func (k *checking) damage(what, where, next, format string, args ...any) {
	k.tell(volume.Problem{Severity: "damage", What: what, Where: where, Problem: fmt.Sprintf(format, args...), Next: next})
}

// checkKind looks at the names of a kind, and at the records.
func checkKind[T recorded](k *checking, of kind[T], look func(T) error) error {
	names, err := checkNames(k, of)
	if err != nil {
		return err
	}
	return catalog.Walk(k.r, of.prefix+"/", func(p catalog.Pair, err error) error {
		var v T
		if err == nil {
			v, err = of.parse(p.Key, p.Value)
		}
		if err != nil {
			if _, named := names[p.Key]; named || k.project == "" {
				k.damage(of.word, p.Key, restore, "%s", err)
			}
			return nil
		}
		h := v.common()
		if !k.of(h.Project) {
			return nil
		}
		if names[p.Key] != of.nameKey(h.Project, h.Name) {
			k.damage(of.word, of.nameKey(h.Project, h.Name), "name it by its id; "+restore, "it does not name %s %s, whose name it is", of.word, h.ID)
		}
		if h.Status == Creating || h.Status == Deleting {
			return nil
		}
		return look(v)
	})
}

// checkNames answers by what name each record is found.
func checkNames[T recorded](k *checking, of kind[T]) (names map[string]string, err error) {
	names = map[string]string{}
	prefix := of.prefix + "-name/"
	if k.project != "" {
		prefix = of.nameKey(k.project, "")
	}
	return names, catalog.Walk(k.r, prefix, func(p catalog.Pair, err error) error {
		if err != nil {
			k.damage(of.word, p.Key, restore, "%s", err)
			return nil
		}
		names[of.prefix+"/"+string(p.Value)] = p.Key
		v, _, err := of.behind(k.r, p)
		if h := v.common(); err == nil && of.nameKey(h.Project, h.Name) != p.Key {
			k.damage(of.word, p.Key, restore, "it names %s %s, which is called otherwise", of.word, p.Value)
		}
		if _, there := k.r.Get(of.prefix + "/" + string(p.Value)); errors.Is(there, catalog.ErrNotFound) {
			k.damage(of.word, p.Key, restore, "it names %s %.100q, whose record is missing", of.word, p.Value)
		}
		return nil
	})
}

// has tells whether an index has a value.
func (k *checking) has(key, value string) bool {
	b, err := k.r.Get(key)
	return err == nil && string(b) == value
}

// missing tells whether a disk or an image is not there.
func (k *checking) missing(project, kind string, id uuid.UUID) bool {
	return refusal.CodeOf(k.s.c.Volumes.MayHold(k.r, project, kind, id)) == refusal.NotFound
}

func (k *checking) server(v serverRecord) error {
	for _, d := range v.Disks {
		if k.missing(v.Project, volume.HolderKind, d.ID) {
			k.damage(servers.word, v.Name, "`nbdcrypt server detach "+v.Name+" "+d.Name+"`, and restore the disk from a backup", "its disk %s (%s) is missing", d.Name, d.ID)
		}
		if !k.has(diskKey(d.ID), v.ID.String()) {
			k.damage(servers.word, v.Name, restore, "nothing keeps its disk %s from being deleted: record %q does not name the server", d.Name, diskKey(d.ID))
		}
	}
	if v.Group != uuid.Nil && !k.has(memberKey(v.Group, v.Number), v.ID.String()) {
		k.damage(servers.word, v.Name, restore, "its group does not know it: record %q does not name it", memberKey(v.Group, v.Number))
	}
	return nil
}

func (k *checking) config(v configRecord) error {
	if k.missing(v.Project, volume.ImageKind, v.Image) {
		k.damage(configs.word, v.Name, "delete it, and make another", "its image %s (%s) is missing", v.ImageName, v.Image)
	}
	if !k.has(imageConfigKey(v.Image, v.ID), "") {
		k.damage(configs.word, v.Name, restore, "nothing keeps its image %s from being deleted: record %q is missing", v.ImageName, imageConfigKey(v.Image, v.ID))
	}
	return nil
}

func (k *checking) group(v groupRecord) error {
	if _, err := k.r.Get(configs.key(v.Config)); errors.Is(err, catalog.ErrNotFound) {
		k.damage(groups.word, v.Name, "it can be scaled down, and deleted", "its scaling configuration %s is missing", v.Config)
	}
	if !k.has(configGroupKey(v.Config, v.ID), "") {
		k.damage(groups.word, v.Name, restore, "nothing keeps its scaling configuration from being deleted: record %q is missing", configGroupKey(v.Config, v.ID))
	}
	return nil
}

// disks looks whether each disk that is a server's is one of those that the server has.
func (k *checking) disks() error {
	return k.index("disk-server/", func(v serverRecord, disk string) bool {
		id, err := uuid.Parse(disk)
		return err == nil && v.role(id) != ""
	})
}

// members looks whether each member of a group knows of that.
func (k *checking) members() error {
	return k.index("scaling-member/", func(v serverRecord, of string) bool {
		return memberKey(v.Group, v.Number) == "scaling-member/"+of
	})
}

// index looks at what names servers. Of a record that can't be read it is told where that is.
func (k *checking) index(prefix string, right func(v serverRecord, of string) bool) error {
	return catalog.Walk(k.r, prefix, func(p catalog.Pair, err error) error {
		var v serverRecord
		id, bad := uuid.Parse(string(p.Value))
		if err == nil && bad == nil {
			v, err = servers.get(k.r, id)
		}
		switch {
		case bad != nil || errors.Is(err, catalog.ErrNotFound):
			if k.project == "" {
				k.damage("index", p.Key, restore, "it names server %.100q, whose record is missing", p.Value)
			}
		case err == nil && k.of(v.Project) && !right(v, strings.TrimPrefix(p.Key, prefix)):
			k.damage("index", p.Key, restore, "it names server %s, which does not say so", v.Name)
		}
		return nil
	})
}
