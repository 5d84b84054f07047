package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// keeperBehind leaves a keeper behind: this command line again, in the background. It prints what that has attached.
func (a *app) keeperBehind(cmd *cobra.Command) error {
	o, err := a.background(cmd, "the device's keeper", a.args)
	if err != nil {
		return err
	}
	return a.attached(cmd, *o.Attached)
}

// keep tells the parent what was done, lets go of all that it has lent, and keeps the device.
func (p *parent) keep(cmd *cobra.Command, k *kept, err error) error {
	if err != nil {
		return p.tell(outcome{Error: control.ErrorOf(err)})
	}
	if err := p.tell(outcome{Attached: &k.at}); err != nil {
		return errors.Join(err, k.undo(cmd.Context())) // nobody waits for it any more
	}
	if err := alone(); err != nil {
		return errors.Join(err, k.undo(cmd.Context()))
	}
	log := newVoice(toSyslog)
	defer log.close()
	k.say = log.say
	if err := k.keep(cmd.Context()); err != nil {
		r := refusal.From(err)
		k.say("%s; %s", r.Message, r.Hint)
		return err
	}
	return nil
}
