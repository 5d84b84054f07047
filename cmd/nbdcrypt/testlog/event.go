package main

import "encoding/json"

// event is a line of go test -json (go doc test2json), or of the build before it (go help buildjson).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// What events say that is looked for here.
const (
	output      = "output"
	buildOutput = "build-output"
	pass        = "pass"
	fail        = "fail"
	skip        = "skip"
)

func parseEvent(line []byte) (e event, is bool) {
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Action != ""
}
