package edit

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"cubicle/daemon/policy"
)

func newEditor(t *testing.T) *Editor {
	t.Helper()
	root := t.TempDir()
	dirs := policy.Dirs{Policy: []string{filepath.Join(root, "policy.d"), filepath.Join(root, "run")}, Legacy: filepath.Join(root, "legacy")}
	for _, dir := range append(slices.Clone(dirs.Policy), dirs.Legacy) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return New(dirs)
}

func kind(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

func TestAFilesLife(t *testing.T) {
	e := newEditor(t)
	mine, part := File{Name: "30-user"}, File{Name: "part", Include: true}
	if err := e.Replace(mine, NoFile, []byte("t.Svc * work mail allow\n")); err != nil {
		t.Fatal(err)
	}
	token, text, err := e.Get(mine)
	if err != nil || string(text) != "t.Svc * work mail allow\n" {
		t.Fatalf("%q, %v", text, err)
	}
	// Who knows an old state, or none, changes nothing.
	for _, c := range []struct {
		token string
		want  Kind
	}{
		{NoFile, BadToken}, {tokenOf([]byte("other")), BadToken}, {"sha256:12", BadProtocol}, {"", BadProtocol},
	} {
		if err := e.Replace(mine, c.token, nil); kind(err) != c.want {
			t.Errorf("token %q: %v", c.token, err)
		}
	}
	// Nor does a text that is no policy, nor one that includes what is not
	// there.
	for _, wrong := range []string{"t.Svc * work mail\n", "!include include/part\n"} {
		if err := e.Replace(mine, token, []byte(wrong)); kind(err) != BadSyntax {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if _, now, _ := e.Get(mine); string(now) != string(text) {
		t.Errorf("it changed to %q", now)
	}
	if err := e.Replace(part, AnyState, []byte("a.Svc * work mail deny\n")); err != nil {
		t.Fatal(err)
	}
	if err := e.Replace(mine, token, []byte("!include include/part\n")); err != nil {
		t.Fatal(err)
	}
	// What is included stays.
	if err := e.Remove(part, AnyState); kind(err) != BadSyntax {
		t.Errorf("%v", err)
	}
	files, err := e.Files("a.Svc")
	if err != nil || !slices.Equal(files, []string{filepath.Join(e.dir, "include/part")}) {
		t.Errorf("%q, %v", files, err)
	}
	for include, want := range map[bool][]string{false: {"30-user"}, true: {"part"}} {
		if names, err := e.List(include); err != nil || !slices.Equal(names, want) {
			t.Errorf("%q, %v", names, err)
		}
	}
	for _, f := range []File{mine, part} {
		if err := e.Remove(f, AnyState); err != nil {
			t.Error(err)
		}
		if _, _, err := e.Get(f); kind(err) != NotFound {
			t.Errorf("%v", err)
		}
		if err := e.Remove(f, AnyState); kind(err) != NotFound {
			t.Errorf("%v", err)
		}
	}
}

func TestNamesStayInTheFolder(t *testing.T) {
	e := newEditor(t)
	for _, name := range []string{"", "../x", "a/b", ".x", "a.policy", "Capital", "a b", "ä", "\x00"} {
		if err := e.Replace(File{Name: name}, AnyState, nil); kind(err) != BadFileName {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Of many who start from the same state one succeeds.
func TestOneOfManyEditorsWins(t *testing.T) {
	e := newEditor(t)
	f := File{Name: "30-user"}
	if err := e.Replace(f, NoFile, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := e.Get(f)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	won := make(chan int, 8)
	for i := range 8 {
		group.Go(func() {
			if err := New(e.dirs).Replace(f, token, []byte{'#', byte('0' + i), '\n'}); err == nil {
				won <- i
			}
		})
	}
	group.Wait()
	close(won)
	winner, ok := <-won
	if _, more := <-won; !ok || more {
		t.Fatal("not one")
	}
	if _, text, err := e.Get(f); err != nil || string(text) != string([]byte{'#', byte('0' + winner), '\n'}) {
		t.Errorf("%q, %v", text, err)
	}
}

// A rule for one argument is added once, and only where none stands.
func TestRegisteredArguments(t *testing.T) {
	e := newEditor(t)
	if err := e.Replace(File{Name: "30-user"}, NoFile, []byte("u2f.Authenticate +taken @anyvm @anyvm deny\nu2f.Authenticate * @anyvm @anyvm deny\n")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		service, argument string
		want              Kind
	}{
		{"u2f.Authenticate", "+01.a-b_c", ""}, {"u2f.Authenticate", "+01.a-b_c", General}, {"u2f.Authenticate", "+taken", General}, {"u2f.Authenticate", "+02", ""},
		{"u2f.Authenticate", "+", BadProtocol}, {"u2f.Authenticate", "+a b", BadProtocol}, {"u2f.Authenticate", "+a\nx", BadProtocol}, {"u2f.Authenticate", "+a+b", BadProtocol},
		{"a/b", "+x", BadProtocol}, {"", "+x", BadProtocol},
	} {
		if err := e.Register(c.service, c.argument, "work", "sys-usb"); kind(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s%s: %v", c.service, c.argument, err)
		}
	}
	_, text, err := e.Get(File{Name: registered})
	if want := "u2f.Authenticate +01.a-b_c work sys-usb allow\nu2f.Authenticate +02 work sys-usb allow\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
}
