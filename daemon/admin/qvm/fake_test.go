package qvm

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cubicle/daemon/paths"
)

// fake is a qubesd that follows a script, the file qubesd of a test: lines
//
//	METHOD[+ARG] DEST [PAYLOAD] -> REPLY
//
// in which PAYLOAD and REPLY may be Go strings in quotes, and a REPLY that
// begins with ! is an exception and its message. A line that begins with "* "
// is a change: it is noted, in order, in the file changes.
type fake struct {
	mu      sync.Mutex
	replies map[string]string
	changes map[string]bool
	log     *os.File
}

func unquote(text string) (string, error) {
	if strings.HasPrefix(text, `"`) {
		return strconv.Unquote(text)
	}
	return text, nil
}

func newFake(script, log string) (*fake, error) {
	raw, err := os.ReadFile(script)
	if err != nil {
		return nil, err
	}
	f := &fake{replies: map[string]string{}, changes: map[string]bool{}}
	for i, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		line, change := strings.CutPrefix(line, "* ")
		request, reply, ok := strings.Cut(line, " ->")
		words := strings.SplitN(request, " ", 3)
		if !ok || len(words) < 2 {
			return nil, fmt.Errorf("line %d of the script: %q", i+1, line)
		}
		payload := ""
		if len(words) == 3 {
			if payload, err = unquote(words[2]); err != nil {
				return nil, fmt.Errorf("line %d of the script: %w", i+1, err)
			}
		}
		if reply, err = unquote(strings.TrimSpace(reply)); err != nil {
			return nil, fmt.Errorf("line %d of the script: %w", i+1, err)
		}
		key := words[0] + " dom0 name " + words[1] + "\x00" + payload
		f.replies[key], f.changes[key] = reply, change
	}
	f.log, err = os.Create(log)
	return f, err
}

func (f *fake) answer(request string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	reply, ok := f.replies[request]
	head, payload, _ := strings.Cut(request, "\x00")
	shown := strings.TrimSpace(strings.Replace(head, " dom0 name", "", 1) + " " + strings.TrimSuffix(strconv.Quote(payload), `""`))
	if !ok {
		if !strings.HasPrefix(head, "cubicle.") { // a foreign qubesd knows none of ours
			fmt.Fprintln(f.log, "unexpected:", shown)
		}
		return "2\x00ProtocolError\x00\x00unknown method\x00"
	}
	if f.changes[request] {
		fmt.Fprintln(f.log, shown)
	}
	if name, ok := strings.CutPrefix(reply, "!"); ok {
		name, message, _ := strings.Cut(name, " ")
		return "2\x00" + name + "\x00\x00" + message + "\x00"
	}
	return "0\x00" + reply
}

// TestForeignQubesd runs the tools against a qubesd with a script: what they
// ask is upstream's, and what they do without our own methods.
func TestForeignQubesd(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/foreign",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("QVM_UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			root, err := paths.New(filepath.Join(e.WorkDir, "root"))
			if err != nil {
				return err
			}
			f, err := newFake(filepath.Join(e.WorkDir, "qubesd"), filepath.Join(e.WorkDir, "changes"))
			if err != nil {
				return err
			}
			l, err := listen(root, "qubesd.sock")
			if err != nil {
				return err
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					raw, err := io.ReadAll(conn)
					if err != nil {
						t.Error(err)
					}
					// A tool that has failed already neither asks nor waits.
					if len(raw) > 0 {
						_, _ = io.WriteString(conn, f.answer(string(raw)))
					}
					conn.Close()
				}
			}()
			e.Defer(func() {
				l.Close()
				<-done
				f.log.Close()
			})
			e.Setenv(paths.Env, string(root))
			e.Setenv("TZ", "UTC")
			return nil
		},
	})
}
