package main

import (
	"slices"
	"strings"
)

// printer makes of events what go test prints without -json.
type printer struct {
	verbose bool
	failed  bool
	skipped []string
	held    map[string][]said // what tests of a package have said whose end is not known, in order
}

// said is a piece of what a test says; the test "" is the package.
type said struct{ test, text string }

func newPrinter(verbose bool) *printer { return &printer{verbose: verbose, held: map[string][]said{}} }

// print takes an event and returns what is to be printed now.
func (p *printer) print(e event) string {
	switch e.Action {
	case buildOutput:
		return e.Output
	case output:
		return p.hear(e)
	case skip:
		if e.Test != "" { // a package is skipped that has no tests
			p.skipped = append(p.skipped, e.Test)
		}
	case fail:
		p.failed = true
	}
	switch {
	case e.Test == "":
		return p.end(e)
	case e.Action == pass, e.Action == skip:
		p.forget(e)
	}
	return ""
}

func (p *printer) hear(e event) string {
	if p.verbose {
		if strings.HasPrefix(e.Output, "=== ") {
			return ""
		}
		return e.Output
	}
	p.held[e.Package] = append(p.held[e.Package], said{e.Test, e.Output})
	return ""
}

// forget drops what a test has said that did well.
func (p *printer) forget(e event) {
	p.held[e.Package] = slices.DeleteFunc(p.held[e.Package], func(s said) bool { return s.test == e.Test })
}

// end prints what is left to say of a package: of one that did well the line about it, else all that its tests have said but those that did well.
func (p *printer) end(e event) string {
	if e.Action != pass && e.Action != skip && e.Action != fail {
		return ""
	}
	var text strings.Builder
	for _, s := range p.held[e.Package] {
		if e.Action == fail && !strings.HasPrefix(s.text, "=== ") || s.test == "" && aboutPackage(s.text) {
			text.WriteString(s.text)
		}
	}
	delete(p.held, e.Package)
	return text.String()
}

// aboutPackage tells the line about a package from what its tests print outside of any.
func aboutPackage(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t")
}
