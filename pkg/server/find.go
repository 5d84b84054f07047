package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// find looks one up by name or id.
func (k kind[T]) find(r catalog.Reader, project, ref string) (T, error) {
	var none T
	id, err := uuid.Parse(ref)
	byName := err != nil
	if byName {
		if id, err = k.named(r, project, ref); err != nil {
			return none, err
		}
	}
	v, err := k.get(r, id)
	if errors.Is(err, catalog.ErrNotFound) && byName {
		return none, fmt.Errorf("%w: record %q names %s, whose record is missing", catalog.ErrDamaged, k.nameKey(project, ref), id)
	}
	if errors.Is(err, catalog.ErrNotFound) || err == nil && v.common().Project != project {
		return none, k.none(project, ref)
	}
	return v, err
}

// named is the id that a name stands for.
func (k kind[T]) named(r catalog.Reader, project, name string) (id uuid.UUID, err error) {
	if checkName(k.word, name, maxName) != nil {
		return id, k.none(project, name)
	}
	b, err := r.Get(k.nameKey(project, name))
	if errors.Is(err, catalog.ErrNotFound) {
		return id, k.none(project, name)
	}
	if err != nil {
		return id, err
	}
	if id, err = uuid.Parse(string(b)); err != nil {
		err = fmt.Errorf("%w: record %q names %q", catalog.ErrDamaged, k.nameKey(project, name), b)
	}
	return id, err
}

func (k kind[T]) none(project, ref string) error {
	return refusal.New(refusal.NotFound, "`nbdcrypt "+k.list+" --project "+project+"` shows what is there", "project %s has no %s %.200q", project, k.word, ref)
}

// lookUp is find in a view of its own.
func (k kind[T]) lookUp(ctx context.Context, c catalog.Store, project, ref string) (v T, err error) {
	err = c.View(ctx, func(r catalog.Reader) (err error) {
		v, err = k.find(r, project, ref)
		return err
	})
	return v, k.explain(ref, err)
}

// madeBefore is what the same request has made already: its answer was lost. Another that has the name is refused.
func (k kind[T]) madeBefore(r catalog.Reader, h head) (made *T, err error) {
	v, err := k.find(r, h.Project, h.Name)
	switch {
	case refusal.CodeOf(err) == refusal.NotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case v.common().Request != h.Request:
		return nil, refusal.New(refusal.Busy, "choose another name, or delete that one first", "project %s has a %s %s already", h.Project, k.word, h.Name)
	case v.common().Status == Creating || v.common().Status == Deleting:
		return nil, refusal.New(refusal.Busy, wait, "%s %s is being made, or could not be made whole", k.word, h.Name)
	}
	return &v, nil
}

// isMade is madeBefore in a view of its own.
func (k kind[T]) isMade(ctx context.Context, c catalog.Store, h head) (made *T, err error) {
	err = c.View(ctx, func(r catalog.Reader) (err error) {
		made, err = k.madeBefore(r, h)
		return err
	})
	return made, k.explain(h.Name, err)
}

// walk calls fn with all of a project, in the order of their names. One that can't be read has a head of what its name tells, and the error.
func (k kind[T]) walk(r catalog.Reader, project string, fn func(v T, h head, err error) error) error {
	prefix := k.nameKey(project, "")
	return catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
		h := head{Name: p.Key[len(prefix):], Project: project}
		var v T
		if err == nil {
			v, h.ID, err = k.behind(r, p)
		}
		if err == nil {
			h = v.common()
		} else if !isDamage(err) {
			return err
		}
		return fn(v, h, err)
	})
}

// behind is what a name stands for.
func (k kind[T]) behind(r catalog.Reader, name catalog.Pair) (v T, id uuid.UUID, err error) {
	if id, err = uuid.Parse(string(name.Value)); err == nil {
		v, err = k.get(r, id)
	} else {
		err = catalog.ErrNotFound
	}
	if errors.Is(err, catalog.ErrNotFound) {
		err = fmt.Errorf("%w: record %q names %q, of which there is no record", catalog.ErrDamaged, name.Key, name.Value)
	}
	return v, id, err
}

// explain turns what the catalog says of damage and missing room into a refusal.
func (k kind[T]) explain(name string, err error) error {
	var r *refusal.Error
	switch {
	case err == nil, errors.As(err, &r):
		return err
	case isDamage(err):
		return refusal.New(refusal.Damaged, "run `nbdcrypt check`; then restore the state directory from a backup", "%s %.200s is damaged: %w", k.word, name, err)
	case isFull(err):
		return refusal.New(refusal.Failed, "make room in the file system of the state directory, then try again", "no space left for %s %.200s: %w", k.word, name, err)
	}
	return fmt.Errorf("%s %.200s: %w", k.word, name, err)
}

// explainList is explain for what is about none in particular.
func explainList(err error) error {
	if isDamage(err) {
		return refusal.New(refusal.Damaged, "restore the state directory from a backup", "the servers can't be listed: %w", err)
	}
	return err
}

func isDamage(err error) bool { return errors.Is(err, catalog.ErrDamaged) }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
