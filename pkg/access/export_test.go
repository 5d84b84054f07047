package access

import (
	"maps"
	"slices"
)

// Actions are all that there is a rule for.
func Actions() []Action { return slices.Sorted(maps.Keys(rules)) }

// Records reads every kind of record of this package under a name, and tells what of them was taken.
func Records(name string, b []byte) (again []any) {
	if rec, err := parse[roleRecord](name, b); err == nil {
		again = append(again, rec)
	}
	if rec, err := parse[projectRecord](name, b); err == nil {
		again = append(again, rec)
	}
	if rec, err := parse[keyGrantRecord](name, b); err == nil {
		again = append(again, rec)
	}
	return again
}
