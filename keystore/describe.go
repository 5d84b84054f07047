package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"unicode"
	"unicode/utf8"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Limits of what a person may write on a CMK: with all of them used up, and as many versions as there can be, its record still fits.
const (
	// MaxTags is rule B5.
	MaxTags        = 20
	MaxTagValue    = 255
	MaxDescription = 255
)

var tagRule = regexp.MustCompile(`^[a-zA-Z0-9_.:/@+-]{1,128}$`)

func checkDescription(text string) error {
	if len(text) > MaxDescription || !printable(text) {
		return refusal.New(refusal.Usage, fmt.Sprintf("use at most %d bytes of UTF-8 on one line", MaxDescription), "%.300q can't be a key's description", text)
	}
	return nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return refusal.New(refusal.Usage, fmt.Sprintf("a key has at most %d tags", MaxTags), "%d tags are too many", len(tags))
	}
	for name, value := range tags {
		if !tagRule.MatchString(name) {
			return refusal.New(refusal.Usage, "use 1 to 128 letters, digits, '_', '.', ':', '/', '@', '+' or '-'", "%.200q can't be a tag's name", name)
		}
		if len(value) > MaxTagValue || !printable(value) {
			return refusal.New(refusal.Usage, fmt.Sprintf("use at most %d bytes of UTF-8 on one line", MaxTagValue), "%.300q can't be the value of tag %s", value, name)
		}
	}
	return nil
}

func printable(text string) bool {
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(text)
}

// Update is what should change of what people call a CMK and say of it; nil for what stays.
type Update struct {
	Alias, Description *string
	Tags               map[string]string
	Untag              []string
}

// Update changes alias, description and tags of a CMK. Its id, and what is under it, stay as they are.
func (s *Store) Update(ctx context.Context, request, project, ref string, u Update) (Info, error) {
	if u.Alias != nil {
		if err := checkAlias(*u.Alias); err != nil {
			return Info{}, err
		}
		// Heard of before, it is found under its new alias.
		if done, err := s.c.Catalog.Outcome(ctx, request); err == nil && done {
			return s.Key(ctx, project, *u.Alias)
		}
	}
	verb := Describe
	if u.Alias != nil {
		verb = Rename
	}
	return s.change(ctx, request, project, ref, verb, func(t catalog.Txn, rec *cmkRecord) error {
		if u.Alias != nil {
			if err := s.rename(t, rec, *u.Alias); err != nil {
				return err
			}
		}
		return rec.describe(u)
	})
}

// describe changes what a record says for people.
func (c *cmkRecord) describe(u Update) error {
	if u.Description != nil {
		c.Description = *u.Description
	}
	tags := maps.Clone(c.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	for _, name := range u.Untag {
		if _, there := tags[name]; !there {
			return refusal.New(refusal.NotFound, "`nbdcrypt key show` shows the tags", "key %s has no tag %.200q", c.name(), name)
		}
		delete(tags, name)
	}
	maps.Copy(tags, u.Tags)
	if c.Tags = tags; len(tags) == 0 {
		c.Tags = nil // as it is read again
	}
	if err := checkTags(tags); err != nil {
		return err
	}
	return checkDescription(c.Description)
}

// rename gives a CMK another alias, which no other may have.
func (s *Store) rename(t catalog.Txn, rec *cmkRecord, alias string) error {
	if alias == rec.Alias {
		return nil
	}
	if err := s.aliasFree(t, rec.Project, alias); err != nil {
		return err
	}
	prefix := aliasPrefix(rec.Region, rec.Project)
	err := errors.Join(t.Delete(prefix+rec.Alias), t.Put(prefix+alias, []byte(rec.ID.String())))
	rec.Alias = alias
	return err
}

// aliasFree refuses an alias that a key of the project has (rule B4), or that is another's id: ids come first, so that it would name that.
func (s *Store) aliasFree(r catalog.Reader, project, alias string) error {
	if isUUID(alias) {
		if _, err := r.Get(cmkKey(project, alias)); err == nil {
			return refusal.New(refusal.Busy, "choose another alias", "%s is the id of a key of project %s", alias, project)
		} else if !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
	}
	_, err := r.Get(aliasPrefix(s.c.Region, project) + alias)
	if err == nil {
		return refusal.New(refusal.Busy, "choose another alias", "project %s has a key with the alias %s already", project, alias)
	}
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	return err
}
