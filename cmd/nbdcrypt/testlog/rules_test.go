package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// table is where the rules stand.
const table = "../../../docs/rules.md"

var (
	row    = regexp.MustCompile(`(?m)^\| ([A-D][0-9]+) \|`)
	ruleID = regexp.MustCompile(`^[A-D][0-9]+$`)
)

// rules are the ids of a table, in its order.
func rules(text string) (ids []string) {
	for _, r := range row.FindAllStringSubmatch(text, -1) {
		ids = append(ids, r[1])
	}
	return ids
}

// named are the rules that a test names: TestRuleA14_A15_WhatItDoes, and so with a subtest, TestKeys/RuleA14_A15_what_it_does.
func named(test string) (ids []string) {
	for part := range strings.SplitSeq(test, "/") {
		list, is := strings.CutPrefix(strings.TrimPrefix(part, "Test"), "Rule")
		if !is {
			continue
		}
		for word := range strings.SplitSeq(list, "_") {
			if !ruleID.MatchString(word) {
				break
			}
			ids = append(ids, word)
		}
	}
	return ids
}

// shown has the rules that tests have shown, and those that tests have named.
type shown struct{ shown, named map[string]bool }

func newShown() *shown { return &shown{map[string]bool{}, map[string]bool{}} }

// read takes the events of a run in. A test counts if it passed and was not skipped as a whole, which one is whose subtests all were.
func (s *shown) read(events io.Reader) error {
	ends, parts, wholeParts := map[string]string{}, map[string]int{}, map[string]int{}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		e, is := parseEvent(lines.Bytes())
		if !is {
			return fmt.Errorf("this is no event of go test -json: %.100q", lines.Text())
		}
		if e.Test == "" || e.Action != pass && e.Action != fail && e.Action != skip {
			continue
		}
		name := e.Package + " " + e.Test
		ends[name] = e.Action
		if above, _, is := cutLast(name); is {
			parts[above]++
			if e.Action != skip && (parts[name] == 0 || wholeParts[name] > 0) {
				wholeParts[above]++
			}
		}
	}
	for name, end := range ends {
		_, test, _ := strings.Cut(name, " ")
		for _, id := range named(test) {
			s.named[id] = true
			if end == pass && (parts[name] == 0 || wholeParts[name] > 0) {
				s.shown[id] = true
			}
		}
	}
	return lines.Err()
}

// cutLast parts a subtest's name from that of the test above it.
func cutLast(name string) (above, part string, is bool) {
	i := strings.LastIndex(name, "/")
	if i < strings.Index(name, " ") { // the package's name has slashes too
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// against holds what tests have shown against a table: rules of A, B and C without a test, and names that are no rule.
func (s *shown) against(ids []string) (unshown, unknown []string) {
	for _, id := range ids {
		if strings.HasPrefix(id, "D") { // a choice between rules: those have the tests
			continue
		}
		if !s.shown[id] {
			unshown = append(unshown, id)
		}
	}
	for id := range maps.Keys(s.named) {
		if !slices.Contains(ids, id) {
			unknown = append(unknown, id)
		}
	}
	slices.Sort(unknown)
	return unshown, unknown
}

func TestNamesOfTests(t *testing.T) {
	for test, want := range map[string]string{
		"TestRuleA1_Volume": "A1", "TestRuleA14_A15_A23_Attached": "A14 A15 A23", "TestRuleC7_AES256": "C7", "TestRuleB16": "B16", "TestRuleA28_C4_B2": "A28 C4 B2",
		"TestRules": "", "TestRulers_A1": "", "TestAttach_A1": "", "TestRuleD5_APlain": "D5", "TestRuleA1x_B2": "",
		"TestRuleA3_Fixed/RuleA4_too": "A3 A4", "TestKeys/RuleB2_B3_each": "B2 B3", "TestKeys/A1": "", "TestKeys/RuleA1#01": "",
	} {
		if got := strings.Join(named(test), " "); got != want {
			t.Errorf("%s names %q, not %q", test, got, want)
		}
	}
}

const smallTable = "# Rules\n| id | rule | shown by |\n|---|---|---|\n| A1 | one | a |\n| A2 | two, see A7 | b |\n\n| B1 | three | c |\n| D1 | a choice |\n"

func TestRowsOfTheTable(t *testing.T) {
	if ids := rules(smallTable); !slices.Equal(ids, []string{"A1", "A2", "B1", "D1"}) {
		t.Error(ids)
	}
}

// line is an event as go test prints it.
func line(action, test string) string {
	return fmt.Sprintf("{\"Time\":\"2026-01-01T00:00:00Z\",\"Action\":%q,\"Package\":\"p/q\",\"Test\":%q,\"Elapsed\":0}\n", action, test)
}

func TestRulesWithoutATest(t *testing.T) {
	all := line(pass, "TestRuleA1_A2_Some") + line(pass, "TestRuleB1_More")
	for name, c := range map[string]struct {
		events           string
		unshown, unknown []string
	}{
		"all have one":                {all, nil, nil},
		"nothing ran":                 {"", []string{"A1", "A2", "B1"}, nil},
		"one failed":                  {line(pass, "TestRuleA1_A2_Some") + line(fail, "TestRuleB1_More"), []string{"B1"}, nil},
		"one was skipped":             {line(skip, "TestRuleA1_A2_Some") + line(pass, "TestRuleB1_More"), []string{"A1", "A2"}, nil},
		"one did not end":             {line("run", "TestRuleA1_A2_Some") + line(pass, "TestRuleB1_More"), []string{"A1", "A2"}, nil},
		"one failed, another passed":  {all + line(fail, "TestRuleB1_Other"), nil, nil},
		"every part was skipped":      {line(skip, "TestRuleA1_A2_Some/a") + line(skip, "TestRuleA1_A2_Some/b") + all, []string{"A1", "A2"}, nil},
		"their parts were skipped":    {line(skip, "TestRuleB1_More/a/b") + line(pass, "TestRuleB1_More/a") + all, []string{"B1"}, nil},
		"one part was not skipped":    {line(skip, "TestRuleB1_More/a") + line(pass, "TestRuleB1_More/b") + all, nil, nil},
		"a part shows it":             {line(pass, "TestRuleA1_A2_Some") + line(pass, "TestKeys/RuleB1_in_parts") + line(pass, "TestKeys"), nil, nil},
		"a choice need not be tested": {all + line(pass, "TestRuleD1_Tested"), nil, nil},
		"no such rule":                {all + line(pass, "TestRuleB9_A77_What"), nil, []string{"A77", "B9"}},
		"no such rule, and it failed": {all + line(fail, "TestRuleA3_What"), nil, []string{"A3"}},
	} {
		s := newShown()
		if err := s.read(strings.NewReader(c.events)); err != nil {
			t.Error(name, err)
		}
		unshown, unknown := s.against(rules(smallTable))
		if !slices.Equal(unshown, c.unshown) || !slices.Equal(unknown, c.unknown) {
			t.Errorf("%s: %v have no test, and %v are no rules", name, unshown, unknown)
		}
	}
}

func TestCutListsAreNotRead(t *testing.T) {
	if err := newShown().read(strings.NewReader(line(pass, "TestA") + line(pass, "TestB")[:40])); err == nil {
		t.Error("half an event is taken for a whole one")
	}
}

// The table has every rule, once, in order: the ids are those of the rules as they were agreed, and stay.
func TestTableOfRules(t *testing.T) {
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, part := range []struct {
		letter string
		last   int
		not    []int
	}{{"A", 42, nil}, {"B", 16, []int{9, 15}}, {"C", 19, []int{2, 6, 10, 14, 16}}, {"D", 6, nil}} {
		for n := 1; n <= part.last; n++ {
			if !slices.Contains(part.not, n) {
				want = append(want, fmt.Sprint(part.letter, n))
			}
		}
	}
	if got := rules(string(text)); !slices.Equal(got, want) {
		t.Errorf("the table has %v, want %v", got, want)
	}
}
