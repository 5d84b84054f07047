//go:build rules

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lists is where the Makefile has testlog keep the lists of tests that ran.
const lists = "../../../bin/tests/"

// stages are the targets of the Makefile that together run all tests, and the files in which those leave their lists.
var stages = map[string][]string{
	"unit":          {"unit", "unit-race"},
	"integration":   {"integration-nbd", "integration-demo", "integration"},
	"test-vm-short": {"test-vm-short"},
}

// Every rule of docs/rules.md has a test that names it, ran, and passed.
func TestEveryRuleIsShown(t *testing.T) {
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	s := newShown()
	for stage, files := range stages {
		for _, file := range files {
			if _, err := os.Stat(lists + file + ".json"); err != nil {
				t.Fatalf("there is no list of the tests that ran (%v): run make %s, or make test for all of them", err, stage)
			}
		}
	}
	found, err := filepath.Glob(lists + "*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.read(file), file.Close()); err != nil {
			t.Fatalf("%s: %v: run make %s again", path, err, strings.TrimSuffix(filepath.Base(path), ".json"))
		}
	}
	unshown, unknown := s.against(rules(string(text)))
	if len(unshown) > 0 {
		t.Errorf("no test named TestRuleID_… that shows these rules of docs/rules.md ran and passed: %s", strings.Join(unshown, ", "))
	}
	if len(unknown) > 0 {
		t.Errorf("tests name rules that docs/rules.md has not: %s", strings.Join(unknown, ", "))
	}
}
