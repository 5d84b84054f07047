package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) serverCreate() *cobra.Command {
	var wish serverWish
	var image string
	cmd := &cobra.Command{
		Use: "create NAME --image IMAGE", Short: "Make a server from an image",
		Long: `Make a server, stopped, with a system disk that holds what IMAGE holds, NAME-system, and a disk for each --data-disk, NAME-data-1 and so on. All of it is made or nothing.

The system disk of an encrypted image is encrypted, under the image's key, and no flag changes that. That of a plain image is as you choose: plain it shares the
image's data; encrypted, or in a project that encrypts by default, all of that is read and written to the disk, which takes its time. It is of the image's size unless --system-size is larger.

A data disk is empty, and its words stand between commas: size=SIZE is needed; encrypted or plain, key=KEY and sector-size=512|4096 mean what they mean for
'disk create'. In the server its serial number is the first 20 characters of its id: a guest may find it at /dev/disk/by-id/virtio-….

It has 1 processor, 1 GiB of memory and a network of the kind user where nothing else is said: the server can reach out then, as the user who runs it can, this host's
loopback too, and nobody reaches in. The kind none is no network.`,
		Example: `  nbdcrypt server create web1 --image golden
  nbdcrypt server create db1 --image golden --system-size 20G --data-disk size=10G,encrypted,key=payroll --data-disk size=1G,plain --cpus 2 --memory 2G
  nbdcrypt server create lab --image plain-debian --key payroll --network none`,
		Args: wants("NAME"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if image == "" {
				return usage(cmd, "--image is missing: a server needs something to boot")
			}
			disks, machine, err := wish.read(cmd)
			if err != nil {
				return err
			}
			return a.oneServer(cmd, func(ctx context.Context, c *control.Client) (control.Server, error) {
				return c.ServerCreate(ctx, control.ServerCreate{Name: args[0], Image: image, System: disks[0], Data: disks[1:], Machine: machine})
			})
		}),
	}
	cmd.Flags().StringVar(&image, "image", "", "the image that it boots from")
	_ = cmd.RegisterFlagCompletionFunc("image", a.completeImageFlag) // the flag exists: it can't fail
	a.serverFlags(cmd, &wish)
	return cmd
}

// serverWish is what the flags say of a server to be, or of the servers of a scaling configuration.
type serverWish struct {
	systemSize, key  string
	encrypted, plain bool
	data             []string
	cpus             int
	memory, network  string
}

func (a *app) serverFlags(cmd *cobra.Command, w *serverWish) {
	flags := cmd.Flags()
	flags.StringVar(&w.systemSize, "system-size", "", "the size of the system disk, where it is not the image's")
	encryptionFlags(cmd, &w.encrypted, &w.plain, &w.key, "system disk")
	flags.StringArrayVar(&w.data, "data-disk", nil, "a data disk: size=SIZE[,encrypted|plain][,key=KEY][,sector-size=512|4096] (may be repeated)")
	flags.IntVar(&w.cpus, "cpus", 0, "how many processors it has")
	flags.StringVar(&w.memory, "memory", "", "how much memory it has: 512M, 2G")
	flags.StringVar(&w.network, "network", "", "user or none")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("data-disk", a.completeDataDisk)
	_ = cmd.RegisterFlagCompletionFunc("network", cobra.FixedCompletions(networks(), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"system-size", "cpus", "memory"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

func networks() []string { return []string{control.NetworkUser, control.NetworkNone} }

// read is the wish as the daemon takes it: the system disk, the data disks, and the machine.
func (w serverWish) read(cmd *cobra.Command) (disks []control.NewDisk, machine control.Machine, err error) {
	if err := checkEncryption(cmd, w.encrypted, w.plain, w.key, "disk"); err != nil {
		return nil, machine, err
	}
	system := control.NewDisk{Key: w.key}
	if encrypted := w.encrypted || w.key != ""; encrypted || w.plain {
		system.Encrypted = &encrypted
	}
	if cmd.Flags().Changed("system-size") {
		if system.Size, err = parseSizeOf(cmd, "--system-size", w.systemSize, minSector); err != nil { // which sector size the image has, the daemon knows
			return nil, machine, err
		}
	}
	disks = []control.NewDisk{system}
	for _, text := range w.data {
		d, err := parseDataDisk(cmd, text)
		if err != nil {
			return nil, machine, err
		}
		disks = append(disks, d)
	}
	machine, err = w.machine(cmd)
	return disks, machine, err
}

// machine is what the flags say beside disks. What they don't say is left to the daemon.
func (w serverWish) machine(cmd *cobra.Command) (m control.Machine, err error) {
	if cmd.Flags().Changed("cpus") && w.cpus < 1 {
		return m, usage(cmd, "--cpus is at least 1, not %d", w.cpus)
	}
	if cmd.Flags().Changed("network") && w.network != control.NetworkUser && w.network != control.NetworkNone {
		return m, usage(cmd, "--network %q is neither user nor none", w.network)
	}
	m.CPUs, m.Network = w.cpus, w.network
	if cmd.Flags().Changed("memory") {
		m.Memory, err = parseMemory(cmd, w.memory)
	}
	return m, err
}
