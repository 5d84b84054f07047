package machine

import (
	"context"
	"encoding/json"

	"nbdcrypt/pkg/qmp"
)

func (m *Machine) dialQMP() (*qmp.Client, error) {
	conn, err := m.dial("qmp")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return qmp.Open(ctx, conn, func(qmp.Event) {}) // nobody waits for those
}

// QMP sends QEMU a command, such as system_wakeup or device_add, and returns its answer.
func (m *Machine) QMP(command string, args any) (answer json.RawMessage, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = m.qmp.Do(ctx, command, args, &answer)
	return answer, err
}
