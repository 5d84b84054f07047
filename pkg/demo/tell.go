package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// teller prints the story and counts what was checked.
type teller struct {
	out    io.Writer
	colour bool
	dir    string
	begun  time.Time
	steps  int
	checks int
	broken error // why nothing can be printed any more
}

func newTeller(out io.Writer, dir string) *teller {
	return &teller{out: out, colour: colourful(out), dir: dir, begun: time.Now()}
}

// colourful tells whether out is a terminal that wants colour (no-color.org).
func colourful(out io.Writer) bool {
	file, isFile := out.(*os.File)
	if !isFile || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// colours of ECMA-48, select graphic rendition.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (t *teller) paint(colour, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (t *teller) line(format string, args ...any) {
	if _, err := fmt.Fprintf(t.out, format+"\n", args...); err != nil && t.broken == nil {
		t.broken = fmt.Errorf("printing: %w", err)
	}
}

func (t *teller) opening(dir string) {
	t.line("nbdcrypt demo: the life of an encrypted disk, from nothing to nothing.\n")
	t.line("Everything happens in a temporary directory that is removed at the end. No daemon or disk of yours is touched.")
	t.line("A line with $ is a command as you would type it; a line with %s says what was checked after it.\n", t.paint(green, "✓"))
	t.line("    %s", t.paint(bold, "$ D="+quote(dir)+"; export NBDCRYPT_RUN=$D/run"))
}

func (t *teller) step(title string) {
	t.steps++
	t.line("\n%s", t.paint(bold, fmt.Sprintf("%2d. %s", t.steps, title)))
}

// command shows a command line, the temporary directory as $D.
func (t *teller) command(words ...string) { t.prompt("", words) }

// beside shows the command line of something that goes on running.
func (t *teller) beside(words ...string) { t.prompt(" &", words) }

func (t *teller) prompt(after string, words []string) {
	shown := make([]string, len(words))
	for i, word := range words {
		shown[i] = quote(strings.ReplaceAll(word, t.dir, "$D"))
	}
	t.line("    %s", t.paint(bold, "$ "+strings.Join(shown, " ")+after))
}

// quote makes one word for a shell, in which $D still means the directory.
func quote(word string) string {
	if word == "" || strings.ContainsAny(word, " ?&;()<>|*'#~") {
		return `"` + word + `"`
	}
	return word
}

// said shows what a command printed.
func (t *teller) said(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		t.line("      %s", t.paint(faint, strings.TrimRight(line, "\n")))
	}
}

func (t *teller) note(text string) { t.line("    %s", text) }

func (t *teller) wrong(text string) { t.line("    %s %s", t.paint(red, "✗"), text) }

func (t *teller) summary() {
	t.line("\n%s", t.paint(green, fmt.Sprintf("All good: %d steps, %d checks, %.1f seconds. Nothing is left behind: no directory, mount, loop device or process.",
		t.steps, t.checks, time.Since(t.begun).Seconds())))
}

// check is something that has to be so.
type check struct {
	good bool
	says string
	got  any // told where it is not so
}

// all reports checks, up to the first that fails.
func (t *teller) all(checks ...check) error {
	for _, c := range checks {
		if !c.good {
			return fmt.Errorf("this should be so: %q; but: %v", c.says, c.got)
		}
		t.done(c.says)
	}
	return nil
}

// done reports something that was checked by doing it.
func (t *teller) done(text string) {
	t.checks++
	t.line("    %s %s", t.paint(green, "✓"), text)
}
