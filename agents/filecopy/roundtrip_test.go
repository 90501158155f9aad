package filecopy

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"cubicle/daemon/qrexec/filecopy/send"
)

// plant makes a tree of many small files, a large one, links and odd names.
func plant(tb testing.TB, dir string, files int, large int64) {
	tb.Helper()
	src := rand.New(rand.NewPCG(1, 2))
	write := func(path string, size int64) {
		f, err := os.Create(path)
		if err != nil {
			tb.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 4096)
		for size > 0 {
			for i := range b {
				b[i] = byte(src.Uint32())
			}
			n, err := f.Write(b[:min(size, 4096)])
			if err != nil {
				tb.Fatal(err)
			}
			size -= int64(n)
		}
	}
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("folder %d", i%17), fmt.Sprint(i%5))
		if err := os.MkdirAll(sub, 0o750); err != nil {
			tb.Fatal(err)
		}
		write(filepath.Join(sub, fmt.Sprintf("żółw %d", i)), int64(src.IntN(2000)))
	}
	write(filepath.Join(dir, "large"), large)
	if err := os.Symlink("large", filepath.Join(dir, "link")); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "folder 0"), 0o500); err != nil {
		tb.Fatal(err)
	}
}

// copyTree sends dir and unpacks it into another folder.
func copyTree(tb testing.TB, dir, into string) {
	tb.Helper()
	f, err := send.Inspect(tb.Context(), []string{dir})
	if err != nil {
		tb.Fatal(err)
	}
	d, err := os.Open(into)
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	r, w := io.Pipe()
	back, answer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := Receiver{Dir: d}.Receive(r, answer)
		answer.Close()
		done <- err
	}()
	if err := f.Send(tb.Context(), w, back, nil); err != nil {
		tb.Fatal(err)
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	plant(t, from, 300, 3<<20)
	copyTree(t, from, to)
	n := 0
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		rel, _ := filepath.Rel(filepath.Dir(from), path)
		a, aerr := os.Lstat(path)
		b, berr := os.Lstat(filepath.Join(to, rel))
		if aerr != nil || berr != nil || a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
			return fmt.Errorf("%s: %v %v, %v %v", rel, a, aerr, b, berr)
		}
		if a.Mode().IsRegular() {
			x, xerr := os.ReadFile(path)
			y, yerr := os.ReadFile(filepath.Join(to, rel))
			if xerr != nil || yerr != nil || string(x) != string(y) {
				return fmt.Errorf("%s: content differs, %v %v", rel, xerr, yerr)
			}
		}
		return nil
	})
	if err != nil || n < 300 {
		t.Errorf("%d files, %v", n, err)
	}
}
