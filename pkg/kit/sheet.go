package kit

import (
	"bytes"
	"fmt"
)

// Problem is what is wrong with what was typed, and where.
type Problem struct {
	// Sheet and Line count from 1; Line is 0 where it is about the sheet as a whole.
	Sheet, Line int
	Why         error
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return fmt.Sprintf("sheet %d: %v", p.Sheet, p.Why)
	}
	return fmt.Sprintf("sheet %d, line %d: %v", p.Sheet, p.Line, p.Why)
}

func (p *Problem) Unwrap() error { return p.Why }

// ReadSheets reads the shares of one sheet after the other into shares, and tells how many there are. It takes a sheet as it was
// printed: lines that begin with "line" and a number count, whatever stands between. first is what the first sheet counts as.
func ReadSheets(shares, text []byte, first int) (count int, err error) {
	want := 1
	for row := range bytes.Lines(text) {
		number, rest, is := lineNumber(row)
		if !is {
			continue
		}
		problem := func(why error) (int, error) { return count, &Problem{first + count, want, why} }
		if number != want {
			return problem(fmt.Errorf("line %d stands in its place", number))
		}
		if (count+1)*ShareSize > len(shares) {
			return count, &Problem{first + count, 0, fmt.Errorf("these are more sheets than a kit has")}
		}
		share := shares[count*ShareSize:][:ShareSize]
		if err := ReadLine(share, rest, number); err != nil {
			return problem(err)
		}
		if want++; want > Lines {
			if _, err := HeadOf(share); err != nil {
				return count, &Problem{first + count, 0, err}
			}
			want, count = 1, count+1
		}
	}
	if want > 1 {
		return count, &Problem{first + count, want, fmt.Errorf("it is missing")}
	}
	return count, nil
}

// lineNumber takes "line 3" from the beginning of a row.
func lineNumber(row []byte) (number int, rest []byte, is bool) {
	row = bytes.TrimSpace(row)
	const word = "line "
	if len(row) < len(word)+1 || !bytes.EqualFold(row[:len(word)], []byte(word)) {
		return 0, nil, false
	}
	digit := row[len(word)]
	rest = row[len(word)+1:]
	if digit < '1' || digit > '0'+Lines || len(rest) == 0 || rest[0] != ' ' && rest[0] != '\t' {
		return 0, nil, false
	}
	return int(digit - '0'), rest, true
}
