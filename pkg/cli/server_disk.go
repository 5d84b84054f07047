package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// diskWords are what a --data-disk may say.
const diskWords = "size=SIZE, encrypted, plain, key=KEY, sector-size=512 and sector-size=4096"

// parseDataDisk reads the words of a --data-disk.
func parseDataDisk(cmd *cobra.Command, text string) (d control.NewDisk, err error) {
	bad := func(format string, args ...any) (control.NewDisk, error) {
		return d, usage(cmd, "--data-disk "+format, args...)
	}
	size, sector := "", int64(minSector)
	var seen []string
	for _, word := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(word, "=")
		if slices.Contains(seen, name) {
			return bad("%s: %s stands in it twice", text, name)
		}
		seen = append(seen, name)
		switch {
		case name == "size" && value != "":
			size = value
		case name == "key" && value != "":
			d.Key = value
		case word == "encrypted", word == "plain":
			encrypted := word == "encrypted"
			d.Encrypted = &encrypted
		case word == "sector-size=512":
			d.SectorSize = minSector
		case word == "sector-size=4096":
			d.SectorSize, sector = maxSector, maxSector
		default:
			return bad("%s: %q is no word of a disk; those are %s", text, word, diskWords)
		}
	}
	plain := slices.Contains(seen, "plain")
	switch {
	case plain && slices.Contains(seen, "encrypted"):
		return bad("%s: encrypted and plain exclude each other", text)
	case plain && d.Key != "":
		return bad("%s: plain and key exclude each other: a plain disk is under no key", text)
	case size == "":
		return bad("%s: size is missing, as in size=10G; the words of a disk are %s", text, diskWords)
	case d.Key != "":
		encrypted := true
		d.Encrypted = &encrypted
	}
	d.Size, err = parseSizeOf(cmd, "--data-disk size", size, sector)
	return d, err
}

// completeDataDisk completes the word of a --data-disk that is being typed.
func (a *app) completeDataDisk(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	if strings.HasPrefix(typed[len(before):], "key=") {
		return complete(a, cmd, (*control.Client).KeyList, func(k control.Key) string { return before + "key=" + k.Alias + "\t" + k.State })
	}
	var words []string
	for _, word := range []string{"size=", "encrypted", "plain", "key=", "sector-size=512", "sector-size=4096"} {
		name, _, _ := strings.Cut(word, "=")
		if !slices.ContainsFunc(strings.Split(before, ","), func(w string) bool { return w == name || strings.HasPrefix(w, name+"=") }) {
			words = append(words, before+word)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
