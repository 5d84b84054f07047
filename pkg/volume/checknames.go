package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"nbdcrypt/pkg/catalog"
)

// checkNames holds the disks and points and the indexes of their names against each other, as they are at one moment: those of a project, or
// of all.
func (s *Service) checkNames(ctx context.Context, project string, found func(Problem)) error {
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		var errs []error
		for _, kind := range append([]string{HolderKind}, PointKinds...) {
			n := namesOf{kind: kind, project: project, found: found}
			errs = append(errs, n.check(r))
		}
		return errors.Join(errs...)
	})
}

// namesOf are the names of one kind.
type namesOf struct {
	kind, project string
	found         func(Problem)
}

func (n namesOf) tell(where, problem string) {
	if n.project == "" || strings.HasPrefix(where, pointNameKey(n.kind, n.project, "")) {
		n.found(Problem{damage, n.kind + " name", where, problem,
			"name the " + n.kind + " by its id, which `nbdcrypt " + n.kind + " list` shows; restore the state directory from a backup", false})
	}
}

func (n namesOf) check(r catalog.Reader) error {
	records := map[string]bool{}
	err := catalog.EachName(r, n.kind+"/", func(key string) error { records[key] = true; return nil })
	if err != nil {
		return err
	}
	named := map[string]string{}
	err = catalog.Walk(r, n.kind+"-name/", func(p catalog.Pair, err error) error {
		if err != nil {
			n.tell(p.Key, err.Error())
		} else if !records[n.kind+"/"+string(p.Value)] {
			n.tell(p.Key, fmt.Sprintf("it names %s %.100q, whose record is missing", n.kind, p.Value))
		}
		named[p.Key] = string(p.Value)
		return nil
	})
	if err != nil {
		return err
	}
	return catalog.Walk(r, n.kind+"/", func(p catalog.Pair, err error) error {
		if err != nil {
			return nil // that is told already
		}
		key, id, err := n.nameOf(p)
		text, there := named[key]
		if err == nil && key != "" && (!there || text != id && text != "") {
			n.tell(key, fmt.Sprintf("it does not name %s %s, whose name it is", n.kind, id))
		}
		return nil
	})
}

// nameOf is where the name of a record has to be; nowhere for one that is half made or half gone.
func (n namesOf) nameOf(p catalog.Pair) (key, id string, err error) {
	var status Status
	var project, name string
	if n.kind == HolderKind {
		d, bad := parseDisk(p.Key, p.Value)
		status, project, name, id, err = d.Status, d.Project, d.Name, d.ID.String(), bad
	} else {
		point, bad := parsePoint(p.Key, p.Value)
		status, project, name, id, err = point.Status, point.Project, point.Name, point.ID.String(), bad
	}
	if status != Available {
		return "", id, err
	}
	return pointNameKey(n.kind, project, name), id, err
}
