package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) scaling() *cobra.Command {
	return group("scaling", "Groups of like servers",
		`A scaling configuration says how servers are made: from which image, with which disks, under which keys. A scaling group has servers that were made like that, as many as
it is told to have.`,
		"  nbdcrypt scaling config create web --from-server web1\n  nbdcrypt scaling group create shop --config web --min 1 --max 10\n  nbdcrypt scaling group scale shop 5 --start",
		a.scalingConfig(), a.scalingGroup())
}
