// Package storage keeps the volumes of qubes. A Pool is a named place with a
// driver; a volume is named by its id within the pool, in upstream's form
// "appvms/NAME/VOLUME" or "vm-templates/NAME/VOLUME" (spec/platform.md §1).
//
// The four kinds of volume follow from two flags: volatile (neither),
// snapshot (SnapOnStart), origin (SaveOnStop).
package storage

import (
	"context"
	"errors"
)

// VID names a volume within its pool: slash-separated, relative, made from
// checked names only.
type VID string

// Spec says what a volume is. It is the durable part: the core keeps it with
// the qube and passes it to every call.
type Spec struct {
	VID         VID
	Size        int64 // bytes; of a snapshot: at least the source's size
	SnapOnStart bool  // starts as a copy of Source's last committed state
	SaveOnStop  bool  // what was written is kept at an orderly stop
	Source      VID   // required iff SnapOnStart, in the same pool
	ReadWrite   bool
	// Revisions is how many old committed states an origin keeps. An origin
	// that keeps none may be written in place: what was written then stays
	// also without a commit, and nobody can copy the volume while it runs.
	Revisions int
	// Kept are revisions that stay beside those, whatever their age. One that
	// does not exist is no error.
	Kept []string
	// Foreign says that a VM, an import or a backup may have written the
	// bytes, of a snapshot those of its source: see Layer.Foreign.
	Foreign bool
}

// Format tells what the bytes of an attachment are.
type Format string

// The formats.
const (
	Raw Format = "raw" // a plain image or a block device
)

// Layer is one image of a started volume.
type Layer struct {
	Path     string // absolute path of an image file or block device in dom0
	Format   Format
	ReadOnly bool
	// Foreign: a VM or an import may have written it, so dom0's kernel must
	// not mount it.
	Foreign bool
}

// Attachment is what a started volume looks like to an engine. Base is the
// image. With an Overlay, writes must go to the overlay (an empty ext4 file
// system of the volume's size, private to this run) and Base is read-only:
// the engine joins the two.
type Attachment struct {
	Base    Layer
	Overlay *Layer
}

// Info is a volume as it is now.
type Info struct {
	Size     int64 // bytes the qube sees
	Usage    int64 // bytes it takes in the pool, revisions included
	Running  bool
	Outdated bool // a running snapshot whose source was committed meanwhile
	// Version is the committed state that is current, or for a running
	// snapshot the one that it was started from.
	Version string
	// Revisions are the older committed states, oldest first.
	Revisions []string
}

// The kinds of error that callers tell apart.
var (
	ErrNotFound  = errors.New("no such volume")
	ErrExists    = errors.New("the volume exists already")
	ErrInUse     = errors.New("the volume is in use")
	ErrNoSpace   = errors.New("the pool is full")
	ErrBadVolume = errors.New("the volume description is not valid")
)

// Pool is a driver's contract. Every method is safe for concurrent use on
// different volumes; the caller serialises calls on one volume. Whatever a
// method reports as done is on disk; whatever fails leaves the volume as it
// was and nothing behind, also when the process is killed half-way (Recover).
// The context ends long copies. Every driver passes storagetest.TestPool.
type Pool interface {
	// Name is the pool's name, Driver that of its driver.
	Name() string
	Driver() string

	// Options are those that its driver has for it.
	Options() map[string]string

	// Create makes a new, empty volume: an origin gets an empty ext4 file
	// system; the other kinds take no room before they are started.
	// ErrExists; ErrBadVolume for a contradictory Spec.
	Create(ctx context.Context, s Spec) error

	// Import makes the committed state of an origin from an image that the
	// caller wrote below ImportDir; the pool owns the file from then on.
	// The old state becomes a revision. ErrInUse while started.
	Import(ctx context.Context, s Spec, image string) error

	// ImportDir is a folder of the pool in which the caller may build an
	// image that Import then takes over without a copy. Recover empties it.
	ImportDir() string

	// Clone copies the committed state of the origin src to the new origin
	// dst. src may be running; ErrInUse where it then has no committed state
	// (Spec.Revisions).
	Clone(ctx context.Context, dst Spec, src VID) error

	// Export copies the committed state of an origin, which may be running,
	// to the new file at path, such as one in another pool's ImportDir.
	// ErrInUse where it then has no committed state (Spec.Revisions);
	// ErrNotFound; ErrBadVolume for the other kinds.
	Export(ctx context.Context, s Spec, path string) error

	// Clear makes the committed state of a stopped origin what Create makes:
	// an empty file system of s.Size bytes. The old state becomes a revision.
	Clear(ctx context.Context, s Spec) error

	// Start makes the volume ready for one run and tells the engine where it
	// is. ErrNotFound; ErrInUse when it is started already. A volume that a
	// crash left started is started again with what it held.
	Start(ctx context.Context, s Spec) (Attachment, error)

	// Stop ends the run: with commit an origin's new state becomes the
	// current one and the old one a revision; volatile and snapshot data is
	// removed. No-op when not started.
	Stop(ctx context.Context, s Spec, commit bool) error

	// Resize grows a stopped origin. ErrBadVolume for a smaller size.
	Resize(ctx context.Context, s Spec, size int64) error

	// Revert makes an older revision of a stopped origin current again.
	Revert(ctx context.Context, s Spec, revision string) error

	// Remove deletes the volume with all its revisions. ErrInUse while
	// started. No-op when it does not exist.
	Remove(ctx context.Context, s Spec) error

	// Info describes the volume. ErrNotFound.
	Info(ctx context.Context, s Spec) (Info, error)

	// Usage is the pool's size and what is used of it, in bytes.
	Usage(ctx context.Context) (size, used int64, err error)

	// Recover removes what an interrupted operation left behind. It is
	// called once, before any other method, with the volumes whose qubes
	// still run; all others are treated as not started.
	Recover(ctx context.Context, running []VID) error
}

// Driver makes pools of one kind.
type Driver struct {
	Name    string
	Options []Option
	// Open returns the pool of that name. Options are those of the driver
	// alone, all required ones among them. fresh: the pool is new, and
	// nothing of anybody else may be where it is to be. Recover is for the
	// caller to call.
	Open func(name string, options map[string]string, fresh bool) (Pool, error)
	// Forget is told of a pool that is no longer used.
	Forget func(name string)
}

// Option is something that a driver must or may be told.
type Option struct {
	Name     string
	Required bool
}
