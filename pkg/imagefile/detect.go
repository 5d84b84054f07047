package imagefile

import (
	"bytes"
	"io"

	"nbdcrypt/pkg/refusal"
)

// magicLength is how much of a file tells its format.
const magicLength = 0x48

// magics are what files begin with. A format that is not ours has a name all the same: its bytes are no disk.
var magics = []struct {
	at     int
	magic  string
	format string
}{
	{0, "QFI\xfb\x00\x00\x00\x01", "qcow (version 1)"},
	{0, "QFI\xfb", QCOW2},
	{0, "KDMV", VMDK},
	{0, "# Disk DescriptorFile", VMDK},
	{0, "COWD", "vmdk (version 3)"},
	{0, "vhdxfile", VHDX},
	{0x40, "\x7f\x10\xda\xbe", VDI},
	{0, "conectix", "vhd (vpc)"},
	{0, "QED\x00", "qed"},
	{0, "WithoutFreeSpace", "parallels"},
	{0, "WithouFreSpacExt", "parallels"},
}

// detect tells a file's format by what it begins with. A guest can write what it likes into a raw disk, so a guess may be wrong; what
// it can do is have the file refused, since nothing that an image names is opened.
func detect(path string, r io.ReaderAt) (string, error) {
	head := make([]byte, magicLength)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	return formatOf(path, head[:n])
}

func formatOf(path string, head []byte) (string, error) {
	for _, m := range magics {
		if len(head) < m.at+len(m.magic) || !bytes.Equal(head[m.at:m.at+len(m.magic)], []byte(m.magic)) {
			continue
		}
		switch m.format {
		case QCOW2, VMDK, VHDX, VDI:
			return m.format, nil
		}
		return "", refusal.New(refusal.Usage, "convert it to qcow2 or raw first (`qemu-img convert`), or say --format raw where these bytes are the disk itself",
			"%s looks like an image in the format %s, which is not read here", path, m.format)
	}
	return Raw, nil
}
