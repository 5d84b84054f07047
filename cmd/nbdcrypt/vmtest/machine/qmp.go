package machine

import (
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// channelQMP is the line to QEMU itself.
type channelQMP struct {
	mu   sync.Mutex
	conn net.Conn
	from *json.Decoder
}

func (m *Machine) dialQMP() (*channelQMP, error) {
	conn, err := m.dial("qmp")
	if err != nil {
		return nil, err
	}
	q := &channelQMP{conn: conn, from: json.NewDecoder(conn)}
	var greeting json.RawMessage
	if err := q.from.Decode(&greeting); err != nil {
		return nil, err
	}
	_, err = q.command("qmp_capabilities", nil)
	return q, err
}

// QMP sends QEMU a command, such as system_wakeup or device_add, and returns its answer.
func (m *Machine) QMP(command string, args any) (json.RawMessage, error) {
	return m.qmp.command(command, args)
}

func (q *channelQMP) command(name string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{name, args}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return nil, err
	}
	for {
		var a struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
		}
		if err := q.from.Decode(&a); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case a.Event != "": // nobody waits for those
		case a.Error != nil:
			return nil, fmt.Errorf("%s: %s", name, a.Error.Desc)
		default:
			return a.Return, nil
		}
	}
}
