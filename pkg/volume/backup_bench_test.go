package volume_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/volume"
)

// BenchmarkBackup is a backup and a restore of 512 MiB, both durable, beside cp and sync of the same bytes, in turn: ratios are cp's time over ours,
// and cpu is what each takes of all processors, in seconds per GiB. TMPDIR says in which file system.
func BenchmarkBackup(b *testing.B) {
	const size = 512 << 20
	for _, encrypted := range []bool{true, false} {
		b.Run(fmt.Sprintf("encrypted=%v", encrypted), func(b *testing.B) {
			r := newRig(b)
			r.create(volume.Spec{Project: "default", Name: "d", Size: size, SectorSize: 512, Encrypted: encrypted})
			a := r.attach("d")
			p := random(4 * mib)
			for off := int64(0); off < size; off += int64(len(p)) {
				write(b, a, p, off)
			}
			must(b, a.Device.Sync())
			var all [3][]float64 // of cp, backup and restore
			var cpu [3]float64
			for i := 0; b.Loop(); i++ {
				name := fmt.Sprint("b", i)
				var made volume.Backup
				note := func(which int, do func()) {
					took, used := clocked(b, do)
					all[which], cpu[which] = append(all[which], took), cpu[which]+used
				}
				note(1, func() {
					var err error
					made, err = r.CreateBackup(b.Context(), "backup "+name, volume.BackupSpec{Project: "default", Disk: "d", Name: name, Full: true}, volume.Work{})
					must(b, err)
				})
				file := filepath.Join(r.dir+"-backups", made.ID+".nbdbackup")
				note(0, func() {
					must(b, exec.Command("cp", "--reflink=never", "--sparse=never", file, file+".copy").Run())
					must(b, exec.Command("sync", file+".copy").Run())
				})
				must(b, os.Remove(file+".copy"))
				note(2, func() {
					_, err := r.restore(name, volume.Spec{Name: "r" + name, Encrypted: encrypted})
					must(b, err)
				})
				must(b, r.Delete(b.Context(), "delete "+name, "default", "r"+name))
				must(b, r.DeleteBackup(b.Context(), "default", name))
			}
			for i, what := range []string{"cp", "backup", "restore"} {
				ratios := make([]float64, b.N)
				for n, took := range all[i] {
					ratios[n] = all[0][n] / took
				}
				slices.Sort(ratios)
				b.ReportMetric(cpu[i]/float64(b.N)*(1<<30)/size, what+"-cpu")
				b.ReportMetric(ratios[b.N/2], what+"/cp")
			}
		})
	}
}

// clocked tells the seconds that something takes, and those of processors, its programs' among them.
func clocked(b *testing.B, do func()) (took, cpu float64) {
	b.Helper()
	used := func() (sum float64) {
		for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
			var r unix.Rusage
			must(b, unix.Getrusage(who, &r))
			sum += float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
		}
		return sum
	}
	must(b, exec.Command("sync", "-f", b.TempDir()).Run())
	before, began := used(), time.Now()
	do()
	return time.Since(began).Seconds(), used() - before
}
