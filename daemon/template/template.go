// Package template builds the images of templates from recipes, with
// mmdebstrap and from Debian's signed archive.
//
// Most callers use Load and Build: Build leaves a finished ext4 image in a
// folder (storage.Pool.ImportDir), which storage.Pool.Import then takes over
// as the root volume of a TemplateVM. A recipe's Version names what it makes;
// a changed recipe has another version, and whether an existing template
// follows it is the caller's decision: Build never touches a template.
//
// The image holds plain user ids and nothing of ours: the agent is bound into
// a qube when it starts.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"cubicle/assets/recipes"
	"cubicle/daemon/storage/sparse"
)

// Recipe says what a template is made of.
type Recipe struct {
	Name       string   `toml:"name"`
	Suite      string   `toml:"suite"`
	Components []string `toml:"components"`
	Updates    []string `toml:"updates"`  // further suites of the same archive
	Security   string   `toml:"security"` // suite in the archive of security updates
	Size       int64    `toml:"size"`     // of the image, MiB
	Packages   []string `toml:"packages"`

	setup   []byte
	version string
}

// Names lists the recipes that there are.
func Names() ([]string, error) {
	entries, err := recipes.FS.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list recipes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Load reads the recipe called name.
func Load(name string) (Recipe, error) {
	return LoadFS(recipes.FS, name)
}

// LoadFS reads the recipe in the folder name of fsys: the files recipe.toml
// and setup.
func LoadFS(fsys fs.FS, name string) (Recipe, error) {
	data, err := fs.ReadFile(fsys, name+"/recipe.toml")
	if err != nil {
		return Recipe{}, fmt.Errorf("recipe %q: %w", name, err)
	}
	setup, err := fs.ReadFile(fsys, name+"/setup")
	if err != nil {
		return Recipe{}, fmt.Errorf("recipe %q: %w", name, err)
	}
	var r Recipe
	meta, err := toml.Decode(string(data), &r)
	if err != nil {
		return Recipe{}, fmt.Errorf("recipe %q: %w", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Recipe{}, fmt.Errorf("recipe %q: unknown key %s", name, unknown[0])
	}
	if r.Name != name || r.Suite == "" || len(r.Components) == 0 || r.Size <= 0 || len(r.Packages) == 0 {
		return Recipe{}, fmt.Errorf("recipe %q: name, suite, components, size and packages are needed", name)
	}
	r.setup = setup
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%s%s", len(data), data, setup)
	r.version = hex.EncodeToString(h.Sum(nil))[:16]
	return r, nil
}

// Version names what the recipe makes: 16 hexadecimal digits that change with
// every change of the recipe.
func (r Recipe) Version() string { return r.version }

// Features are what the agent, which every qube of ours gets, asks for by
// qubes.FeaturesRequest (spec/services.md §9), and what the recipe says of its
// system: a template has them before its first start.
func (r Recipe) Features() map[string]string {
	f := map[string]string{"qrexec": "1", "gui": "1", "vmexec": "1", "os": "Linux", "os-distribution": "debian"}
	if version, ok := strings.CutPrefix(r.Name, "debian-"); ok && version != "" && strings.Trim(version, "0123456789.") == "" {
		f["os-version"] = version
	}
	return f
}

// Options says how a build runs.
type Options struct {
	Recipe Recipe
	// Dir is the folder that gets the finished image, usually
	// storage.Pool.ImportDir. Everything temporary lives in it as well.
	Dir string
	// Cache is a folder, private to root, that keeps one finished image a
	// recipe for later builds; empty for none.
	Cache string
	// Progress is called from one goroutine with a growing fraction (0–1)
	// and what is being done; it may be nil.
	Progress func(fraction float64, text string)
	// Log gets what the tools say, line by line; nil for none.
	Log *slog.Logger
}

// ErrTools is wrapped by the error of a build that lacks a program; the text
// names the mend.
var ErrTools = errors.New("a program is missing")

// Build makes the recipe's image and returns its path below Dir and its size
// in bytes. The caller owns the file. When Build fails or ctx ends, nothing
// of it is left in Dir; what a killed process leaves begins with "build-".
// Root is needed.
func Build(ctx context.Context, o Options) (image string, size int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("build template %s: %w", o.Recipe.Name, err)
		}
	}()
	if o.Progress == nil {
		o.Progress = func(float64, string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	work, err := os.MkdirTemp(o.Dir, "build-")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // apt's own user works below it
		return "", 0, err
	}

	made := filepath.Join(work, "root.img")
	if o.Cache == "" {
		err = buildImage(ctx, o, work, made)
	} else {
		err = makeCached(ctx, o, work, made)
	}
	if err != nil {
		return "", 0, err
	}
	name := fmt.Sprintf("%s-%s-%s.img", o.Recipe.Name, o.Recipe.version, strings.TrimPrefix(filepath.Base(work), "build-"))
	image = filepath.Join(o.Dir, name)
	if err := os.Rename(made, image); err != nil {
		return "", 0, err
	}
	o.Progress(1, "Template is ready")
	return image, o.Recipe.Size << 20, nil
}

// makeCached takes the image from the cache, or makes it there first. One
// build at a time fills the cache.
func makeCached(ctx context.Context, o Options, work, image string) error {
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(o.Cache, o.Recipe.Name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := waitLock(ctx, lock); err != nil {
		return err
	}
	kept := filepath.Join(o.Cache, o.Recipe.Name+"-"+o.Recipe.version+".img")
	if trusted(kept) {
		o.Progress(0.5, "Copying the template from the cache")
		return sparse.Copy(ctx, image, kept)
	}
	if err := buildImage(ctx, o, work, image); err != nil {
		return err
	}
	if err := keep(ctx, o, image, kept); err != nil {
		// The template is made; a full cache does not take it away.
		o.Log.Warn("the template was not kept for the next time", "error", err)
	}
	return nil
}

// keep puts image into the cache in place of older versions of the recipe.
func keep(ctx context.Context, o Options, image, kept string) error {
	old, err := filepath.Glob(filepath.Join(o.Cache, o.Recipe.Name+"-*.img*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	tmp := kept + "~"
	if err := sparse.Copy(ctx, tmp, image); err != nil {
		return err
	}
	return os.Rename(tmp, kept)
}

// trusted tells whether path is a file that root alone can write.
func trusted(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG &&
		st.Uid == 0 && st.Mode&0o022 == 0
}
