package load

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
)

// Command is the load as a program: the plan, and what else is asked for, as flags, then the target. It writes what Run says, or a Result as JSON.
func Command(args []string, out io.Writer) error {
	var p Plan
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.Uint64Var(&p.Seed, "seed", 1, "what the changes follow from")
	flags.IntVar(&p.Workers, "workers", 4, "how many there are")
	flags.IntVar(&p.Sectors, "sectors", 2048, "of each worker's part")
	flags.Int64Var(&p.Stride, "stride", 0, "bytes from part to part (default: next to each other)")
	flags.BoolVar(&p.Whole, "whole", false, "zeros only in whole blocks of 4096 bytes")
	changes := flags.Uint64("changes", 0, "of each worker; 0 for no end")
	device := flags.String("marks", "", "say what is durable on this device instead of stdout")
	name := flags.String("name", "", "said before each line there")
	acks := flags.String("verify", "", "hold the target against these acknowledgements, in JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if p.Stride == 0 {
		p.Stride = int64(p.Sectors) * Sector
	}
	if flags.NArg() != 1 || p.Sectors <= longest || p.Stride < int64(p.Sectors)*Sector {
		return fmt.Errorf("load: one target, parts of more than %d sectors that don't overlap", longest)
	}
	if *acks == "" && *device != "" {
		m, err := openMarks(*device, *name)
		if err != nil {
			return err
		}
		return Run(p, flags.Arg(0), *changes, m)
	}
	if *acks == "" {
		return Run(p, flags.Arg(0), *changes, out)
	}
	var a Acks
	if err := json.Unmarshal([]byte(*acks), &a); err != nil {
		return fmt.Errorf("load: acknowledgements: %w", err)
	}
	r, err := Verify(p, flags.Arg(0), a)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}
