package chain

// Advice is what to do about a log that was tampered with.
const Advice = "keep the files as evidence, and restore the state directory from a backup; without one, " +
	"`nbdcrypt serve --replace-audit-log` keeps them aside and begins another log"
