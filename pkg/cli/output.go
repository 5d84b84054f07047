package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// result prints what a command found: as JSON, or as people prints it.
func (a *app) result(cmd *cobra.Command, v any, people func(w io.Writer)) error {
	var text bytes.Buffer
	if a.json {
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			return fmt.Errorf("printing the result: %w", err)
		}
	} else {
		people(&text)
	}
	if _, err := cmd.OutOrStdout().Write(text.Bytes()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// list prints a table of rows, or in place of an empty one what to do next.
func list[T any](a *app, cmd *cobra.Command, items []T, next, header string, row func(T) []string) error {
	if len(items) == 0 && !a.json {
		a.say(cmd, "%s", next)
		return nil
	}
	return a.result(cmd, control.List(items), func(w io.Writer) {
		table(w, func(t io.Writer) {
			fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t"))
			for _, item := range items {
				fmt.Fprintln(t, strings.Join(row(item), "\t"))
			}
		})
	})
}

// stream prints an array as its elements arrive, once all have: the same as result, without making anything of them.
func stream(a *app, cmd *cobra.Command, each func(context.Context, *control.Client, func(json.RawMessage) error) error) error {
	text := bytes.NewBufferString("[")
	_, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (none struct{}, err error) {
		return none, each(ctx, c, func(element json.RawMessage) error {
			if text.Len() > 1 {
				text.WriteByte(',')
			}
			text.WriteString("\n  ")
			return json.Indent(text, element, "  ", "  ")
		})
	})
	if err != nil {
		return err
	}
	if text.Len() > 1 {
		text.WriteByte('\n')
	}
	text.WriteString("]\n")
	if _, err := cmd.OutOrStdout().Write(text.Bytes()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// table aligns the tab-separated cells that fill writes.
func table(w io.Writer, fill func(t io.Writer)) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fill(t)
	_ = t.Flush() // into memory: it can't fail
}

// say tells a person what is no result.
func (a *app) say(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
}

// warn prints warnings to a person; in JSON they are a field of the result.
func (a *app) warn(cmd *cobra.Command, warnings []string) {
	if a.json {
		return
	}
	for _, warning := range warnings {
		a.say(cmd, "warning: %s", warning)
	}
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
