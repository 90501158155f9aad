package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cubicle/agents/open"
)

type openCmd struct {
	inWindow
	ViewOnly bool   `help:"The file cannot be changed there."`
	What     string `arg:"" name:"file-or-link" help:"A file, or a link such as https://www.example.org."`
}

type openInCmd struct {
	Target string `arg:"" name:"qube" help:"Where to open it."`
	openCmd
}

func (c *openInCmd) run(ctx context.Context, w Where) error {
	return c.told(ctx, c.in(ctx, w, c.Target))
}

type openInDisposableCmd struct{ openCmd }

func (c *openInDisposableCmd) run(ctx context.Context, w Where) error {
	if opener := openerOf(os.Getenv("QREXEC_SERVICE_FULL_NAME")); opener != "" {
		if err := confirm(ctx, os.Getenv("QREXEC_REMOTE_DOMAIN"), c.What); err != nil {
			return c.told(ctx, err)
		}
	}
	return c.told(ctx, c.in(ctx, w, anyDisposable))
}

// openerOf tells whether we run on behalf of another qube that has asked to
// open something.
func openerOf(service string) string {
	bare, _, _ := strings.Cut(service, "+")
	if bare == open.Service || bare == open.URLService {
		return bare
	}
	return ""
}

func (c openCmd) in(ctx context.Context, w Where, target string) error {
	f, err := os.Open(c.What)
	if errors.Is(err, os.ErrNotExist) && open.LooksLikeURL(c.What) {
		return openURL(ctx, w, target, c.What)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", c.What)
	}
	back := &answer{path: c.What, mode: info.Mode().Perm(), discard: c.ViewOnly}
	defer back.remove()
	err = w.exchange(ctx, target, open.Service, func(_ context.Context, out io.WriteCloser, in io.Reader) error {
		if _, err := out.Write(open.Header(filepath.Base(c.What), c.ViewOnly)); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, f, make([]byte, 64<<10)); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
		return back.read(in)
	})
	if err != nil {
		return err
	}
	kept, err := back.replace()
	if err != nil {
		return err
	}
	if kept != "" {
		fmt.Fprintf(w.Stderr, "The changed file is %s: the folder of %s cannot be written to\n", kept, c.What)
	}
	return nil
}

// openURL sends a link to be opened.
func openURL(ctx context.Context, w Where, target, url string) error {
	if err := open.CheckURL(url); err != nil {
		return err
	}
	return w.exchange(ctx, target, open.URLService, func(_ context.Context, out io.WriteCloser, in io.Reader) error {
		if _, err := io.WriteString(out, url+"\n"); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, in)
		return err
	})
}

// answer is a changed file that comes back.
type answer struct {
	path    string // the file
	mode    os.FileMode
	discard bool

	tmp       *os.File // nil: nothing has come
	elsewhere bool     // not beside the file
}

// read takes what comes, if it is anything at all.
func (a *answer) read(in io.Reader) error {
	b := make([]byte, 64<<10)
	for {
		n, err := in.Read(b)
		if n > 0 && !a.discard {
			if a.tmp == nil {
				if terr := a.create(); terr != nil {
					return terr
				}
			}
			if _, werr := a.tmp.Write(b[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// create makes the file for the answer beside the file that it will replace,
// or in /tmp.
func (a *answer) create() error {
	var err error
	a.tmp, err = os.CreateTemp(filepath.Dir(a.path), filepath.Base(a.path)+".")
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		a.elsewhere = true
		a.tmp, err = os.CreateTemp(os.TempDir(), "file_edited_in_dvm.")
	}
	return err
}

// replace puts the answer in the file's place, or returns where it is kept.
func (a *answer) replace() (kept string, err error) {
	if a.tmp == nil {
		return "", nil
	}
	if err := errors.Join(a.tmp.Chmod(a.mode), a.tmp.Sync()); err != nil {
		return "", err
	}
	name := a.tmp.Name()
	if err := a.tmp.Close(); err != nil {
		return "", err
	}
	if a.elsewhere {
		a.tmp = nil
		return name, nil
	}
	if err := os.Rename(name, a.path); err != nil {
		return "", err
	}
	a.tmp = nil
	return "", nil
}

// remove removes what was not put in place.
func (a *answer) remove() {
	if a.tmp != nil {
		a.tmp.Close()
		os.Remove(a.tmp.Name())
	}
}
