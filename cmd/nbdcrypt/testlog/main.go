// Command testlog stands behind `go test -json` in the Makefile: it prints what go test would print, keeps the events in a file, and fails where a
// test did, or was skipped and must not be. Its tests hold such files against docs/rules.md: each rule has a test that ran and passed.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	verbose := flag.Bool("v", false, "print what every test says, as go test -v does")
	whole := flag.Bool("noskip", false, "a skipped test shows nothing, so it counts as failed")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ... | testlog [-v] [-noskip] FILE")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Stdout, flag.Arg(0), newPrinter(*verbose), *whole); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run reads all events; the failure of a test is told by go test itself, at the other end of the pipe, and all the same here.
func run(in io.Reader, out io.Writer, path string, p *printer, whole bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	kept, shown := bufio.NewWriter(file), bufio.NewWriter(out)
	err = errors.Join(follow(in, kept, shown, p), kept.Flush(), shown.Flush(), file.Close())
	switch {
	case err != nil:
		return fmt.Errorf("testlog: %w", err)
	case whole && len(p.skipped) > 0:
		return fmt.Errorf("testlog: these tests were skipped: %v", p.skipped)
	case p.failed:
		return errors.New("testlog: there are tests that failed")
	}
	return nil
}

// follow prints and keeps each event as it comes. A line that is none is from a program of its own, and only printed.
func follow(in io.Reader, kept, shown *bufio.Writer, p *printer) error {
	for from := bufio.NewReader(in); ; {
		line, err := from.ReadBytes('\n')
		if len(line) > 0 {
			e, is := parseEvent(line)
			if !is {
				shown.Write(line) // an error stays, and Flush tells it
			} else {
				kept.Write(line)
				shown.WriteString(p.print(e))
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err := errors.Join(err, shown.Flush()); err != nil {
			return err
		}
	}
}
