package qmp

import (
	"encoding/json"
	"fmt"
)

// message is a line from QEMU.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// kind is what a message is.
type kind int

const (
	unknown kind = iota
	aGreeting
	anEvent
	anAnswer
)

func (m message) kind() kind {
	switch {
	case m.QMP != nil:
		return aGreeting
	case m.Event != "":
		return anEvent
	case m.ID != nil && (m.Error != nil || m.Return != nil):
		return anAnswer
	}
	return unknown
}

// parse reads a line. All that we ask has a number, so that what is no event and has none is no answer to us.
func parse(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("reading what QEMU says: %w", err)
	}
	if m.kind() == unknown {
		return message{}, fmt.Errorf("QEMU says what is no greeting, event or answer: %.200q", line)
	}
	return m, nil
}

// result is what an answer says to a command.
func (m message) result(command string, out any) error {
	if m.Error != nil {
		return &Error{command, m.Error.Class, m.Error.Desc}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("qmp: %s: reading the answer: %w", command, err)
	}
	return nil
}
