package client

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Qube is a line of admin.vm.List.
type Qube struct {
	Name, Class, State, UUID string
}

// IsAdmin reports whether the qube is dom0.
func (q Qube) IsAdmin() bool { return q.Class == "AdminVM" }

// IsDown reports whether the qube has no running machine.
func (q Qube) IsDown() bool { return q.State == "Halted" || q.State == "NA" }

// List are all qubes, dom0 first, then by name.
func (c *Client) List(ctx context.Context) ([]Qube, error) {
	return c.list(ctx, "dom0")
}

// Qube is one qube, by name or uuid:UUID.
func (c *Client) Qube(ctx context.Context, name string) (Qube, error) {
	if name == "" || strings.ContainsAny(name, " \x00") {
		return Qube{}, &Error{"QubesVMNotFoundError", fmt.Sprintf("no such domain: %q", name)}
	}
	list, err := c.list(ctx, name)
	if err != nil {
		return Qube{}, err
	}
	for _, q := range list { // dom0's list is everybody's
		if q.Name == name || "uuid:"+q.UUID == name {
			return q, nil
		}
	}
	return Qube{}, &Error{"QubesVMNotFoundError", fmt.Sprintf("no such domain: %q", name)}
}

func (c *Client) list(ctx context.Context, dest string) ([]Qube, error) {
	text, err := c.Call(ctx, dest, "admin.vm.List", "", nil)
	if err != nil {
		return nil, err
	}
	var list []Qube
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		q := Qube{Name: words[0]}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "class":
				q.Class = value
			case "state":
				q.State = value
			case "uuid":
				q.UUID = value
			}
		}
		list = append(list, q)
	}
	return list, nil
}

// Words calls a method whose reply is a list of words, one on each line.
func (c *Client) Words(ctx context.Context, dest, method, arg string) ([]string, error) {
	text, err := c.Call(ctx, dest, method, arg, nil)
	if err != nil {
		return nil, err
	}
	return strings.Fields(text), nil
}

// Pairs calls a method whose reply is lines KEY=VALUE, and returns them in
// their order.
func (c *Client) Pairs(ctx context.Context, dest, method, arg string) ([][2]string, error) {
	text, err := c.Call(ctx, dest, method, arg, nil)
	if err != nil {
		return nil, err
	}
	var list [][2]string
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			list = append(list, [2]string{key, value})
		}
	}
	return list, nil
}

// Value is a cell of a Table.
type Value struct {
	Text  string
	Known bool // the qube has such a thing
}

// Row is a qube with the columns that were asked for.
type Row struct {
	Qube
	Values []Value
}

// The columns that Table knows besides PropertyColumn and FeatureColumn.
const (
	TagsColumn   = "tags"   // separated by spaces
	MemoryColumn = "memory" // in use, in KiB; 0 when off
	CPUColumn    = "cpu"    // percent of one processor; only of our own qubesd
)

// PropertyColumn is the column of a property.
func PropertyColumn(name string) string { return "property:" + name }

// FeatureColumn is the column of a qube's own feature.
func FeatureColumn(name string) string { return "feature:" + name }

// Table returns columns of all qubes, dom0 first, then by name. Our own
// qubesd gives them in one call (cubicle.vm.List); another one is asked for
// each qube.
func (c *Client) Table(ctx context.Context, columns ...string) ([]Row, error) {
	if len(columns) > 0 {
		text, err := c.Call(ctx, "dom0", "cubicle.vm.List", "", []byte(strings.Join(columns, "\n")))
		if err == nil {
			return parseTable(text, len(columns))
		}
		if !Missing(err) {
			return nil, err
		}
	}
	list, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]Row, len(list))
	err = c.Each(ctx, len(list), func(ctx context.Context, i int) error {
		rows[i].Qube = list[i]
		var err error
		rows[i].Values, err = c.columns(ctx, list[i], columns)
		if Is(err, "QubesVMNotFoundError") { // removed meanwhile
			rows[i].Name, err = "", nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	present := rows[:0]
	for _, r := range rows {
		if r.Name != "" {
			present = append(present, r)
		}
	}
	return present, nil
}

// atOnce is how many calls Each has under way.
const atOnce = 8

// Each calls do for 0 to n-1, several at a time, and returns the first error.
func (c *Client) Each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var work sync.WaitGroup
	for range min(n, atOnce) {
		work.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	work.Wait()
	return context.Cause(ctx)
}

// parseTable reads the reply of cubicle.vm.List: for each qube NAME, CLASS,
// STATE, UUID and the columns, separated by tabs. A column is "-" when the
// qube has none, else "=" and the text, escaped like GetAll's.
func parseTable(text string, columns int) ([]Row, error) {
	var rows []Row
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != 4+columns {
			return nil, &Error{"QubesDaemonCommunicationError", fmt.Sprintf("unexpected list of qubes from qubesd: %.64q", line)}
		}
		r := Row{Qube: Qube{cells[0], cells[1], cells[2], cells[3]}, Values: make([]Value, columns)}
		for i, cell := range cells[4:] {
			value, ok := strings.CutPrefix(cell, "=")
			if ok {
				r.Values[i] = Value{unescape(value), true}
			}
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// unescape undoes the escapes of GetAll and cubicle.vm.List.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(text)
}

// columns asks one qube by upstream's calls. What we may not know, in a qube,
// is not known.
func (c *Client) columns(ctx context.Context, q Qube, columns []string) ([]Value, error) {
	values := make([]Value, len(columns))
	a := asker{Client: c, qube: q.Name, denied: map[string]bool{}}
	for i, column := range columns {
		kind, name, _ := strings.Cut(column, ":")
		var err error
		switch kind {
		case "property":
			values[i], err = a.property(ctx, name)
		case "feature":
			values[i].Text, err = a.call(ctx, "admin.vm.feature.Get", name)
			values[i].Known = err == nil
		case TagsColumn:
			var text string
			text, err = a.call(ctx, "admin.vm.tag.List", "")
			values[i] = Value{strings.Join(strings.Fields(text), " "), err == nil}
		case MemoryColumn:
			var text string
			if q.IsDown() {
				break
			}
			text, err = a.call(ctx, "admin.vm.CurrentState", "")
			for _, word := range strings.Fields(text) {
				if kib, ok := strings.CutPrefix(word, "mem="); ok {
					values[i] = Value{kib, true}
				}
			}
		}
		if err != nil && !Missing(err) && !Is(err, "QubesFeatureNotFoundError") && !Is(err, "QubesNoSuchPropertyError") {
			return nil, err
		}
	}
	return values, nil
}

// asker asks for columns of one qube, and does not go on with a method that
// it may not call: a person may be told of each try.
type asker struct {
	*Client
	qube   string
	denied map[string]bool // methods
	props  map[string]Property
}

func (a *asker) call(ctx context.Context, method, arg string) (string, error) {
	if a.denied[method] {
		return "", errDenied
	}
	text, err := a.Call(ctx, a.qube, method, arg, nil)
	a.denied[method] = Missing(err)
	return text, err
}

var errDenied = &Error{"PermissionDenied", "this is not allowed"}

// property takes all properties at once if it may.
func (a *asker) property(ctx context.Context, name string) (Value, error) {
	const all, one = "admin.vm.property.GetAll", "admin.vm.property.Get"
	if a.props == nil && !a.denied[all] {
		var err error
		a.props, err = a.Properties(ctx, a.qube)
		a.denied[all] = Missing(err)
		if err != nil && !Missing(err) {
			return Value{}, err
		}
	}
	if a.props != nil {
		p, known := a.props[name]
		return Value{p.Value, known}, nil
	}
	if a.denied[one] {
		return Value{}, errDenied
	}
	p, err := a.Property(ctx, a.qube, name)
	a.denied[one] = Missing(err)
	return Value{p.Value, err == nil}, err
}
