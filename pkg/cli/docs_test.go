package cli

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nbdcrypt/pkg/bench"
	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/control"
)

// section returns what stands under a heading of docs/cli.md.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/cli.md has no section %q", heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// commandLines are the indented lines of a section that call nbdcrypt, without that word.
func commandLines(t *testing.T, heading string) []string {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(section(t, heading), "\n") {
		if rest, is := strings.CutPrefix(line, "    nbdcrypt "); is {
			lines = append(lines, rest)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("docs/cli.md lists no commands under %q", heading)
	}
	return lines
}

var flagWord = regexp.MustCompile(`--[a-z-]+`)

// TestDocsCommands: the page lists every command with every flag of its own, and nothing else.
func TestDocsCommands(t *testing.T) {
	documented := map[string][]string{}
	for _, line := range commandLines(t, "Commands") {
		path := "nbdcrypt"
		for _, word := range strings.Fields(line) {
			if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(word) {
				break
			}
			path += " " + word
		}
		documented[path] = flagWord.FindAllString(line, -1)
	}
	walk(tree(), func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			return
		}
		want, listed := documented[cmd.CommandPath()]
		if !listed {
			t.Errorf("docs/cli.md does not list %s", cmd.CommandPath())
			return
		}
		delete(documented, cmd.CommandPath())
		var flags []string
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags = append(flags, "--"+f.Name)
			}
		})
		slices.Sort(flags)
		slices.Sort(want)
		if !slices.Equal(flags, want) {
			t.Errorf("%s has the flags %q, docs/cli.md says %q", cmd.CommandPath(), flags, want)
		}
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		if line := strings.TrimPrefix(cmd.CommandPath(), "nbdcrypt ") + " " + arguments; !listedAs(t, strings.TrimSpace(line)) {
			t.Errorf("docs/cli.md does not call it %q", line)
		}
	})
	for path := range documented {
		t.Errorf("docs/cli.md lists %s, which does not exist", path)
	}
}

func listedAs(t *testing.T, use string) bool {
	return slices.ContainsFunc(commandLines(t, "Commands"), func(line string) bool { return strings.HasPrefix(line+" ", use+" ") })
}

// TestDocsReserved: what is reserved does not exist; once it does, it moves up.
func TestDocsReserved(t *testing.T) {
	for _, line := range commandLines(t, "Reserved words") {
		group, rest, _ := strings.Cut(line, " ")
		for _, part := range strings.Split(rest, " | ") {
			words := append([]string{group}, strings.Fields(part)...)
			cmd, _, err := tree().Find(words[:min(2, len(words))])
			if err != nil || !cmd.HasParent() || cmd.HasSubCommands() {
				continue // no such command, or only its group
			}
			// A command that exists may have flags that are reserved; there must be one, and none may exist.
			flags := flagWord.FindAllString(line, -1)
			if len(flags) == 0 {
				t.Errorf("reserved, but it exists: %s %s", group, part)
			}
			for _, flag := range flags {
				if cmd.Flags().Lookup(strings.TrimPrefix(flag, "--")) != nil {
					t.Errorf("reserved, but it exists: %s %s", cmd.CommandPath(), flag)
				}
			}
		}
	}
}

// TestDocsExitCodes: the page's table has exactly the codes of pkg/refusal.
func TestDocsExitCodes(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../refusal/refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []int
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is {
			return true
		}
		if kind, named := spec.Type.(*ast.Ident); named && kind.Name == "Code" {
			code, err := strconv.Atoi(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
		return true
	})
	var documented []int
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(section(t, "Exit codes"), -1) {
		code, _ := strconv.Atoi(row[1])
		documented = append(documented, code)
	}
	if len(codes) < 11 || !slices.Equal(codes, documented) {
		t.Errorf("pkg/refusal has %v, docs/cli.md %v", codes, documented)
	}
}

// TestDocsFields: every field that the page promises is one that the program prints.
func TestDocsFields(t *testing.T) {
	types := map[string]any{
		"attach": control.Attached{}, "detach": control.Detached{}, "disk show": control.Disk{}, "disk escrow": control.Escrow{}, "snapshot show": control.Snapshot{}, "image show": control.Image{},
		"server show": control.Server{}, "server show --libvirt": Domain{}, "scaling config show": control.ScalingConfig{}, "scaling group show": control.ScalingGroup{}, "scaling group scale": control.ScalingGroup{},
		"backup show": control.Backup{}, "backup verify": control.BackupVerified{}, "backup prune": control.BackupPruned{}, "backup key": control.BackupKey{},
		"key show": control.Key{}, "key uses": control.KeyUse{}, "key disable --dry-run": control.Prediction{}, "clock show": control.Clock{}, "grant create": control.Grant{}, "project show": control.Project{}, "role grant": control.Role{}, "key grant": control.KeyGrant{}, "check": control.CheckReport{}, "status": control.Status{}, "version": Version{},
		"bench cipher": bench.Row{}, "bench io": iobench.Report{}, "bench layers": iobench.LayersReport{}, "bench scale": iobench.ScaleReport{}, "root unlock": control.RootState{}, "root slot list": control.Slot{}, "root slot add credential": control.Credential{}, "root recovery create": control.RecoveryKit{}, "key import": Prepared{}, "key rewrap": control.Rewrapped{},
		"audit list": control.AuditRecord{}, "audit head": control.AuditHead{}, "audit verify": control.AuditVerified{},
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z -]+)` \\| (?:an array of )?`(\\{.*\\})` \\|").FindAllStringSubmatch(section(t, "Output"), -1)
	if len(rows) != len(types) {
		t.Errorf("docs/cli.md has JSON for %d commands, want %d", len(rows), len(types))
	}
	for _, row := range rows {
		v, known := types[row[1]]
		if !known {
			t.Errorf("no type for %s", row[1])
			continue
		}
		// The page's shorthand as JSON: a name without a value gets null, a PATH is a string.
		text := regexp.MustCompile(`("[a-z0-9_]+")([,}])`).ReplaceAllString(strings.ReplaceAll(row[2], "PATH", `"p"`), "$1:null$2")
		var fields map[string]any
		if err := json.Unmarshal([]byte(strings.ReplaceAll(text, `"cipher":"aes-xts-plain64":null`, `"cipher":null`)), &fields); err != nil {
			t.Errorf("%s: %s: %v", row[1], text, err)
			continue
		}
		promised(t, row[1], fields, reflect.TypeOf(v))
	}
}

func promised(t *testing.T, path string, fields map[string]any, of reflect.Type) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	printed := map[string]reflect.Type{}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		printed[name] = of.Field(i).Type
	}
	for name, inside := range fields {
		if printed[name] == nil {
			t.Errorf("docs/cli.md: %s has no field %q", path, name)
			continue
		}
		if list, is := inside.([]any); is && len(list) > 0 {
			inside = list[0]
		}
		if object, is := inside.(map[string]any); is {
			promised(t, path+"."+name, object, printed[name])
		}
	}
}

// TestDocsPlaces: the page's table of paths is what the program does.
func TestDocsPlaces(t *testing.T) {
	text := section(t, "Where things are")
	for _, p := range []place{statePlace(), runPlace(), rootKeyPlace()} {
		row := "| `" + p.flag + "` | `$" + p.variable + "` | `" + p.root + "` | `$" + p.xdg + "/" + p.under + "` |"
		if !strings.Contains(text, row) {
			t.Errorf("docs/cli.md lacks the row %s", row)
		}
		if p.home != "" && !strings.Contains(text, "`~/"+p.home+"`") {
			t.Errorf("docs/cli.md does not say ~/%s", p.home)
		}
	}
	for _, socket := range []string{control.SocketControl, control.SocketNBD} {
		if !strings.Contains(text, "`"+socket+"`") {
			t.Errorf("docs/cli.md does not name %s", socket)
		}
	}
}
