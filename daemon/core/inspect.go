package core

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// PropertyRow is a property of a qube as people see it.
type PropertyRow struct {
	Row       qube.Property
	Value     string
	IsDefault bool
	Settable  bool // now
}

// Properties are all rows of a qube, by name.
func (c *Core) Properties(id qube.UUID) ([]PropertyRow, error) {
	q, err := c.find(id)
	if err != nil {
		return nil, err
	}
	var rows []PropertyRow
	for _, row := range qube.Rows(q.Class()) {
		value, isDefault := row.Value(q)
		rows = append(rows, PropertyRow{row, value, isDefault, settable(q, row) == nil})
	}
	return rows, nil
}

// Draft is a qube that might be made: its class, and its template's name or
// nothing for the default one.
type Draft struct{ Class, Template string }

// imagine is the qube that a draft would become.
func (c *Core) imagine(d Draft) (Qube, error) {
	class, err := qube.ParseClass(d.Class)
	if err != nil || class == qube.AdminVM {
		return Qube{}, Failf(BadValue, "a qube of class %q cannot be created", d.Class)
	}
	v := c.View()
	rec := store.Record{Class: class}.Clone()
	if err := c.draftTemplate(v, &rec, d.Template); err != nil {
		return Qube{}, err
	}
	return Qube{v, &entry{rec: rec, state: qube.Halted, xid: -1}}, nil
}

// DraftProperties are the rows that can be chosen for a new qube, with the
// values that it has unless told otherwise.
func (c *Core) DraftProperties(d Draft) ([]PropertyRow, error) {
	q, err := c.imagine(d)
	if err != nil {
		return nil, err
	}
	var rows []PropertyRow
	for _, row := range qube.Rows(q.Class()) {
		if row.Set == qube.Never || row.Set == qube.AtCreation {
			continue
		}
		value, isDefault := row.Value(q)
		rows = append(rows, PropertyRow{row, value, isDefault, true})
	}
	return rows, nil
}

// CheckProperty tells what is wrong with a text for a property of a new qube,
// and returns the value that it would become.
func (c *Core) CheckProperty(d Draft, name, text string) (string, error) {
	q, err := c.imagine(d)
	if err != nil {
		return "", err
	}
	return c.check(q, name, text)
}

// Bounds of what is told of a console log and a journal, in lines and bytes.
const (
	maxLines   = 2000
	maxConsole = 256 << 10
)

// Console returns the last lines of the qube's console, as the qube wrote
// them: whoever shows them cleans them first. It is empty before the first
// start.
func (c *Core) Console(id qube.UUID, lines int) (string, error) {
	q, err := c.findMachine(id)
	if err != nil {
		return "", err
	}
	if c.cfg.Logs == "" {
		return "", Failf(NotImplemented, "consoles are not kept here")
	}
	text, err := tail(filepath.Join(c.cfg.Logs, "console-"+string(q.Name())+".log"), maxConsole)
	if err != nil {
		return "", wrap(err, "read the console of %s", q.Name())
	}
	return lastLines(text, min(lines, maxLines)), nil
}

// Messages returns what this daemon said of the qube lately, a line each,
// oldest first.
func (c *Core) Messages(id qube.UUID, lines int) ([]string, error) {
	q, err := c.find(id)
	if err != nil {
		return nil, err
	}
	return c.journal.last(min(lines, maxLines), string(q.Name()), string(id)), nil
}

// tail reads the last bytes of a file; a file that is not there is empty.
func tail(path string, most int64) (text string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-most), most))
	return string(raw), err
}

// lastLines keeps the last n lines of a text.
func lastLines(text string, n int) string {
	if n <= 0 {
		return ""
	}
	end := strings.TrimSuffix(text, "\n")
	at := len(end)
	for range n {
		at = strings.LastIndexByte(end[:at], '\n')
		if at < 0 {
			return text
		}
	}
	return text[at+1:]
}

// SystemProperties are all rows of the system, by name.
func (c *Core) SystemProperties() []PropertyRow {
	s := c.View().System()
	var rows []PropertyRow
	for _, row := range qube.SystemRows() {
		value, isDefault := row.Value(s)
		rows = append(rows, PropertyRow{row, value, isDefault, row.Set != qube.Never})
	}
	return rows
}
