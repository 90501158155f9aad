package filecopy

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wire "cubicle/daemon/qrexec/filecopy"
)

var stamp = wire.Time{Sec: 1700000001, Nsec: 5}

func record(name string, mode uint32, data string) string {
	return string(wire.Record(name, mode, uint64(len(data)), stamp, stamp)) + data
}

func fileRec(name, data string) string   { return record(name, wire.TypeFile|0o640, data) }
func folderRec(name string) string       { return record(name, wire.TypeDir|0o750, "") }
func linkRec(name, target string) string { return record(name, wire.TypeLink|0o777, target) }

var end = string(wire.End())

// receive unpacks a stream and returns the answer.
func receive(t *testing.T, dir, stream string, allNames bool) (wire.Answer, int, error) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	status, err := Receiver{Dir: f, AllNames: allNames}.Receive(strings.NewReader(stream), &out)
	if out.Len() == 0 {
		return wire.Answer{}, status, err
	}
	a, rerr := wire.ReadAnswer(&out)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return a, status, err
}

func TestUnpacks(t *testing.T) {
	dir := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 50_000)
	stream := fileRec("a", "hello") + folderRec("d") + fileRec("d/big", big) + folderRec("d/e") + linkRec("d/e/up", "../big") + folderRec("d/e") +
		record("d/suid", wire.TypeFile|0o4755, "") + linkRec("d/l", "./big") + folderRec("d") + fileRec("żółw", "") + end
	a, status, err := receive(t, dir, stream, false)
	// The name comes back as a sender sees it.
	if err != nil || status != 0 || a != (wire.Answer{CRC: crc32.ChecksumIEEE([]byte(stream)), Name: "______w", HasName: true}) {
		t.Fatalf("%+v, %d, %v", a, status, err)
	}
	for name, want := range map[string]string{"a": "hello", "d/big": big, "d/l": big, "d/e/up": big, "żółw": ""} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(b) != want {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	for name, mode := range map[string]uint32{"a": 0o640, "d": 0o750, "d/suid": 0o4755} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode&wire.PermMask != mode || st.Mtim.Sec != int64(stamp.Sec) || st.Mtim.Nsec != 5 {
			t.Errorf("%s: mode %o, modified %v, %v", name, st.Mode, st.Mtim, err)
		}
	}
}

// TestErrors is the table of spec/services.md §2, and what else a stream can
// try.
func TestErrors(t *testing.T) {
	header := func(nameLen uint32, mode uint32, size uint64, at, mt wire.Time) string {
		return string(wire.Header{NameLen: nameLen, Mode: mode, Size: size, Atime: at, Mtime: mt}.AppendTo(nil))
	}
	d := folderRec("d")
	deep := d + folderRec("d/e")
	for _, c := range []struct {
		name, stream string
		code         wire.Code
		text         string // the name field
		allNames     bool
	}{
		{"up", fileRec("../a", ""), 84, "../a", false},
		{"absolute", fileRec("/a", ""), 84, "/a", false},
		{"dot", fileRec("./a", ""), 84, "./a", false},
		{"empty component", fileRec("d//a", ""), 84, "d//a", false},
		{"empty name", fileRec("", ""), 84, "", false},
		{"dot dot", fileRec("..", ""), 84, "..", true},
		{"line break", fileRec("a\nb", ""), 84, "a_b", false},
		{"no UTF-8", fileRec("\xff", ""), 84, "_", false},
		{"Hebrew", fileRec("א", ""), 84, "__", false},
		{"emoji", fileRec("\U0001F600", ""), 84, "____", false},
		{"line break allowed", fileRec("a\nb", "") + end, 0, "a_b", true},
		{"up with all names", fileRec("../a", ""), 84, "../a", true},
		{"folder up", folderRec("../d"), 84, "../d", false},
		{"link at the top", linkRec("l", "a"), 67, "a", false},
		{"link up", d + linkRec("d/l", "../a"), 67, "../a", false},
		{"link absolute", d + linkRec("d/l", "/etc/passwd"), 67, "/etc/passwd", false},
		{"link down and up", d + linkRec("d/l", "a/../b"), 67, "a/../b", false},
		{"link two up", deep + linkRec("d/e/l", "../../a"), 67, "../../a", false},
		{"through a link", d + linkRec("d/l", "a") + fileRec("d/l/x", ""), 20, "d/l/x", false},
		{"folder on a link", deep + linkRec("d/l", "e") + folderRec("d/l"), 20, "d/l", false},
		{"file on a link", d + linkRec("d/l", "a") + fileRec("d/l", "x"), 17, "d/l", false},
		{"exists", fileRec("a", "") + fileRec("a", ""), 17, "a", false},
		{"link exists", deep + linkRec("d/l", "a") + linkRec("d/l", "b"), 17, "d/l", false},
		{"no parent", fileRec("d/a", ""), 2, "d/a", false},
		{"below a file", fileRec("a", "") + fileRec("a/b", ""), 20, "a/b", false},
		{"fifo", record("a", unix.S_IFIFO|0o644, ""), 22, "a", false},
		{"device", record("a", unix.S_IFBLK|0o644, ""), 22, "a", false},
		{"character device", record("a", unix.S_IFCHR|0o644, ""), 22, "a", false},
		{"socket", record("a", unix.S_IFSOCK|0o644, ""), 22, "a", false},
		{"no type", record("a", 0o644, ""), 22, "a", false},
		{"long name", fileRec("a", "") + header(16384, wire.TypeFile, 0, stamp, stamp), 36, "", false},
		{"longest number of a name", header(1<<32-1, wire.TypeFile, 0, stamp, stamp), 36, "", false},
		{"10⁶ folders in a name", header(2_000_001, wire.TypeFile, 0, stamp, stamp) + strings.Repeat("a/", 1_000_000) + "a\x00", 36, "", false},
		{"long component", fileRec(strings.Repeat("x", 300), ""), 36, strings.Repeat("x", 300), false},
		{"long link", d + header(4, wire.TypeLink, 1<<40, stamp, stamp) + "d/l\x00", 36, "d/l", false},
		{"no end record", fileRec("a", ""), 121, "a", false},
		{"nothing at all", "", 121, "", false},
		{"end in a header", fileRec("a", "")[:20], wire.CodeReported, "", false},
		{"end in a name", fileRec("abc", "")[:33], wire.CodeReported, "", false},
		{"size lie", header(2, wire.TypeFile, 1<<63, stamp, stamp) + "a\x00some", wire.CodeReported, "a", false},
		{"size too small", header(2, wire.TypeFile, 1, stamp, stamp) + "a\x00" + strings.Repeat("s", 40), 36, "", false},
		{"only the end", end, 0, "", false},
		{"no NUL", header(1, wire.TypeFile, 0, stamp, stamp) + "a" + end, 0, "a", false},
		{"NUL inside", header(4, wire.TypeFile, 0, stamp, stamp) + "a\x00/b" + end, 0, "a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			a, status, err := receive(t, dir, c.stream, c.allNames)
			if a.Code != c.code || a.Name != c.text || status != int(c.code%256) || (err == nil) != (c.code == 0) {
				t.Errorf("%+v, %d, %v; want %d %q", a, status, err, c.code, c.text)
			}
			if c.name == "size lie" {
				if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
					t.Errorf("half a file stays: %v, %v", left, err)
				}
			}
		})
	}
	for _, nsec := range []wire.Time{{Nsec: 1e9}, {Nsec: 1<<32 - 1}} {
		var out bytes.Buffer
		f, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		status, err := Receiver{Dir: f}.Receive(strings.NewReader(header(2, wire.TypeFile, 0, nsec, stamp)+"a\x00"), &out)
		if status != 1 || out.Len() != 0 || err == nil {
			t.Errorf("%d nanoseconds: %d, %q, %v", nsec.Nsec, status, out.Bytes(), err)
		}
		f.Close()
	}
}

// TestLinksFromElsewhere: a link that was there before is not followed either.
func TestLinksFromElsewhere(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{fileRec("d/a", "x"), folderRec("d/a"), folderRec("d"), linkRec("d/a", "b")} {
		if a, _, _ := receive(t, dir, stream+end, false); a.Code != 20 {
			t.Errorf("%q: %+v", stream, a)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestDeepTree: paths far longer than a system call takes, down and up again.
func TestDeepTree(t *testing.T) {
	const depth = 3000
	var s strings.Builder
	path := strings.Repeat("a/", depth-1) + "a"
	for i := range depth {
		s.WriteString(folderRec(path[:2*i+1]))
	}
	s.WriteString(fileRec(path+"/f", "deep"))
	for i := depth - 1; i >= 0; i-- {
		s.WriteString(folderRec(path[:2*i+1]))
	}
	dir := t.TempDir()
	began := time.Now()
	a, _, err := receive(t, dir, s.String()+end, false)
	if err != nil || a.Code != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	t.Logf("%d folders below each other in %v", depth, time.Since(began))
	tr := tree{}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr.root = int(f.Fd())
	defer tr.close()
	fd, err := tr.folder(path)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, "f", &st, 0); err != nil || st.Size != 4 {
		t.Errorf("%+v, %v", st, err)
	}
	if len(tr.open) > maxOpen {
		t.Errorf("%d folders are open", len(tr.open))
	}
}

// TestFullDisk: a file that does not fit is told by its errno and leaves
// nothing, while the ones before it stay.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	a, status, err := receive(t, dir, fileRec("small", "x")+fileRec("large", strings.Repeat("x", 2<<20))+end, false)
	if a.Code != wire.Code(unix.ENOSPC) || status != 28 || !errors.Is(err, unix.ENOSPC) || a.Name != "large" {
		t.Errorf("%+v, %d, %v", a, status, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "small" {
		t.Errorf("%v, %v", left, err)
	}
}

// TestWithoutUnnamedFiles is the way on file systems that have none.
func TestWithoutUnnamedFiles(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		stream string
		ok     bool
		left   int
	}{
		{fileRec("a", "x") + end, true, 1},
		{fileRec("a", "y") + end, false, 1},
		{fileRec("b", "long")[:37], false, 1},
	} {
		s := stream{r: bufioReader(c.stream), buf: make([]byte, bufferSize), tree: tree{root: int(f.Fd()), noUnnamed: true}}
		err := s.all()
		s.tree.close()
		left, derr := os.ReadDir(dir)
		if (err == nil) != c.ok || derr != nil || len(left) != c.left {
			t.Errorf("%q: %v, %v, %v", c.stream, err, left, derr)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestIncoming(t *testing.T) {
	home := t.TempDir()
	for range 2 {
		f, err := Incoming(home, "work")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, dir := range []string{"QubesIncoming", "QubesIncoming/work"} {
		if fi, err := os.Stat(filepath.Join(home, dir)); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi, err)
		}
	}
	for _, source := range []string{"", ".", "..", "a/b", "../x", "a\x00"} {
		if _, err := Incoming(home, source); err == nil {
			t.Errorf("%q is taken for a source", source)
		}
	}
}

// FuzzReceive: whatever comes, nothing appears outside the folder, and no
// link in it leads out of its topmost folder.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(fileRec("a", "hello")+end), false)
	f.Add([]byte(folderRec("d")+linkRec("d/l", "a")+fileRec("d/l/x", "")+folderRec("d")+end), true)
	f.Add([]byte(fileRec("../a", "")), true)
	f.Add([]byte(folderRec("d")+folderRec("d/e")+linkRec("d/e/l", "../../a")), false)
	f.Fuzz(func(t *testing.T, b []byte, allNames bool) {
		home := t.TempDir()
		dir := filepath.Join(home, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s := stream{r: bufioReader(string(b)), buf: make([]byte, bufferSize), tree: tree{root: int(d.Fd())}, allNames: allNames}
		_ = codeOf(s.all())
		s.tree.close()
		if left, err := os.ReadDir(home); err != nil || len(left) != 1 {
			t.Fatalf("%v, %v", left, err)
		}
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				return os.Chmod(path, 0o700) // so that it can be removed
			}
			return nil
		})
		err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Type()&fs.ModeSymlink == 0 {
				return err
			}
			target, err := os.Readlink(path)
			rel, _ := filepath.Rel(dir, path)
			if err == nil && wire.CheckLink(rel, target, true) != nil {
				t.Errorf("%s → %s", rel, target)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func bufioReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
