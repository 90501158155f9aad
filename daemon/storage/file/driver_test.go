package file

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPoolsShareNoFolder(t *testing.T) {
	var f Folders
	dir := t.TempDir()
	own, err := New("own", filepath.Join(dir, "own"))
	if err == nil {
		err = f.Add(own)
	}
	if err != nil {
		t.Fatal(err)
	}
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	if _, err := f.Open("first", at("a", "b"), true); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("a"), at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(at("full", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"same": at("a", "b"), "in ours": at("own", "x"), "below": at("a", "b", "c"), "above": at("a"), "through a link": at("link", "b"),
		"relative": "a", "root": "/", "with files of others": at("full"), "empty": "",
	} {
		if _, err := f.Open(name, path, true); err == nil {
			t.Errorf("%s: %s was opened", name, path)
		}
	}
	open := f.Driver().Open
	if p, err := open("second", map[string]string{dirPath: at("a", "bc")}, true); err != nil || p.Name() != "second" || p.Driver() != Driver {
		t.Errorf("%v, %v", p, err)
	}
	if err := os.MkdirAll(at("a", "bc", "appvms"), 0o700); err != nil {
		t.Fatal(err)
	}
	if p, err := open("second", map[string]string{dirPath: at("a", "bc")}, false); err != nil || p == nil {
		t.Errorf("a known pool with files: %v", err)
	}
	for _, gone := range []string{"full", "nowhere"} {
		if p, err := open("third", map[string]string{dirPath: at(gone)}, false); err == nil {
			t.Errorf("%s became the known pool %v", gone, p)
		}
	}
	if _, err := os.Stat(at("nowhere")); err == nil {
		t.Error("the folder of a pool that is not there was made")
	}
	f.Forget("first")
	if p, err := open("again", map[string]string{dirPath: at("a", "b")}, true); err != nil || p == nil {
		t.Errorf("the folder of a forgotten pool: %v", err)
	}
	if p, err := open("bad", nil, true); err == nil || p != nil {
		t.Errorf("%v, %v", p, err)
	}
}
