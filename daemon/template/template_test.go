package template

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestEveryRecipeLoads(t *testing.T) {
	names, err := Names()
	if err != nil || len(names) == 0 {
		t.Fatalf("Names() = %v, %v", names, err)
	}
	for _, name := range names {
		r, err := Load(name)
		if err != nil {
			t.Error(err)
		}
		if len(r.Version()) != 16 {
			t.Errorf("recipe %s: version %q", name, r.Version())
		}
		if f := r.Features(); f["qrexec"] != "1" || f["gui"] != "1" || f["vmexec"] != "1" || name == "debian-12" && f["os-version"] != "12" {
			t.Errorf("recipe %s: features %v", name, f)
		}
	}
}

const smallRecipe = `name = "small"
suite = "bookworm"
components = ["main"]
size = 1024
packages = ["sudo"]
`

func small(recipe, setup string) fstest.MapFS {
	return fstest.MapFS{
		"small/recipe.toml": {Data: []byte(recipe)},
		"small/setup":       {Data: []byte(setup)},
	}
}

func TestVersionFollowsTheRecipe(t *testing.T) {
	load := func(recipe, setup string) string {
		r, err := LoadFS(small(recipe, setup), "small")
		if err != nil {
			t.Fatal(err)
		}
		return r.Version()
	}
	first := load(smallRecipe, "#!/bin/sh\n")
	if again := load(smallRecipe, "#!/bin/sh\n"); again != first {
		t.Errorf("the same recipe has the versions %s and %s", first, again)
	}
	if other := load(smallRecipe+"# changed\n", "#!/bin/sh\n"); other == first {
		t.Error("a changed recipe kept its version")
	}
	if other := load(smallRecipe, "#!/bin/sh\nexit\n"); other == first {
		t.Error("a changed setup kept its version")
	}
}

func TestBadRecipes(t *testing.T) {
	for what, recipe := range map[string]string{
		"unknown key": smallRecipe + "colour = 1\n",
		"other name":  strings.Replace(smallRecipe, "small", "large", 1),
		"no packages": strings.Replace(smallRecipe, `"sudo"`, "", 1),
		"not TOML":    "}",
	} {
		if _, err := LoadFS(small(recipe, ""), "small"); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestMeterGrows(t *testing.T) {
	var got []string
	last := -1.0
	m := &meter{progress: func(f float64, text string) {
		if f < last || f > 1 {
			t.Errorf("%q: progress went from %v to %v", text, last, f)
		}
		last = f
		got = append(got, text)
	}}
	for line := range strings.Lines(`Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://deb.debian.org/debian bookworm/main amd64 a
Get:2 http://deb.debian.org/debian bookworm/main amd64 b
Unpacking a (1) ...
Setting up a (1) ...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://deb.debian.org/debian bookworm/main amd64 c
Unpacking c (1) ...
Setting up c (1) ...
0 upgraded, 7 newly installed, 0 to remove and 0 not upgraded.
I: running --customize-hook directly: /x/setup /x/tree
`) {
		m.line(strings.TrimSpace(line))
	}
	want := []string{
		"Downloading packages (1 of 2)", "Downloading packages (2 of 2)", "Unpacking packages (1 of 2)", "Setting up packages (1 of 2)",
		"Downloading packages (1 of 1)", "Unpacking packages (1 of 1)", "Setting up packages (1 of 1)",
		"Setting up the template",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last < endInstall {
		t.Errorf("the meter ended at %v", last)
	}
}

func needBuild(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("building needs root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("mmdebstrap is not installed")
	}
	if testing.Short() {
		t.Skip("builds a whole system")
	}
}

// empty fails the test when dir holds something.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in %s", e.Name(), dir)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	needBuild(t)
	r, err := LoadFS(small(smallRecipe, "#!/bin/sh\n"), "small")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, _, err = Build(ctx, Options{Recipe: r, Dir: dir, Progress: func(_ float64, text string) {
		if strings.HasPrefix(text, "Downloading") {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled build gave %v", err)
	}
	empty(t, dir)
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Error("a mount is left below the folder")
	}
}

func TestFailedBuildTellsWhyAndLeavesNothing(t *testing.T) {
	needBuild(t)
	fsys := small(strings.Replace(smallRecipe, "bookworm", "no-such-suite", 1), "#!/bin/sh\n")
	r, err := LoadFS(fsys, "small")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, _, err = Build(t.Context(), Options{Recipe: r, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "no-such-suite") {
		t.Errorf("the error does not name the suite: %v", err)
	}
	empty(t, dir)
}

func TestBuildAndCache(t *testing.T) {
	needBuild(t)
	r, err := LoadFS(small(smallRecipe, "#!/bin/sh\nset -eu\necho made >\"$1/etc/made-by-setup\"\n"), "small")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Recipe: r, Dir: t.TempDir(), Cache: filepath.Join(t.TempDir(), "cache"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	image, size, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(image); err != nil || size != 1024<<20 || info.Size() != size {
		t.Fatalf("image %v of %d bytes, %v", info, size, err)
	}
	out, err := exec.Command("debugfs", "-R", "cat /etc/made-by-setup", image).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "made\n") {
		t.Errorf("the image lacks what setup made: %s %v", out, err)
	}
	if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}

	began := time.Now()
	second, _, err := Build(t.Context(), o)
	if err != nil || second == image {
		t.Fatalf("second build: %q, %v", second, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the cached build took %v", took)
	}
}
