package admin

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// Methods of our own, for our own tools. Against another qubesd they do
// without (package daemon/admin/client).

// jobEvents streams how far jobs are, until the client goes: the jobs that
// run already, then every change. Subject is the job's qube, the event's name
// is job:KIND (job:start, job:clone, …), its arguments are
//
//	id        number of the job
//	state     running, done, failed or cancelled
//	progress  0 to 1
//	text      what it is doing, for people
//	error     why it failed
func (c *call) jobEvents(ctx context.Context) error {
	return c.stream(ctx, func(ctx context.Context, sub *core.Subscription) error {
		for _, j := range sortedJobs(c.core.View()) {
			if err := c.tellJob(j); err != nil {
				return err
			}
		}
		for {
			batch, v, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			told := map[uint64]bool{} // a batch shows a job as it is at its end
			for _, e := range batch {
				j, ok := v.Job(e.Job)
				if e.Job == 0 || !ok || told[e.Job] {
					continue
				}
				told[e.Job] = true
				if err := c.tellJob(j); err != nil {
					return err
				}
			}
		}
	})
}

func sortedJobs(v *core.View) []core.Job {
	var list []core.Job
	for _, j := range v.Jobs() {
		if j.State == core.JobRunning {
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b core.Job) int { return int(a.ID) - int(b.ID) })
	return list
}

// tellJob tells of a job when it is the destination's, or the destination is
// dom0, and the policy does not keep it from the source.
func (c *call) tellJob(j core.Job) error {
	if !c.dest.IsAdmin() && j.Qube != c.dest.Name() {
		return nil
	}
	if q, ok := c.core.View().Named(j.Qube); ok && !c.allows("admin.Events", "job_"+j.Kind, q) {
		return nil
	}
	return c.tell(core.Event{Subject: j.Qube, Name: "job:" + j.Kind, Args: []core.Arg{
		{Key: "id", Value: strconv.FormatUint(j.ID, 10)},
		{Key: "state", Value: string(j.State)},
		{Key: "progress", Value: strconv.FormatFloat(j.Progress, 'f', 3, 64)},
		{Key: "text", Value: j.Text},
		{Key: "error", Value: j.Err},
	}})
}

var errNoColumn = errors.New("no such column")

// column is a cell of a qube's row, or false when the qube has no such thing.
type column func(q core.Qube) (string, bool)

// cloneWhole copies a qube with its settings and data to one of the name in
// the argument: whole or not at all, as one job.
func cloneWhole(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Clone(c.dest.UUID(), c.req.Arg, c.source.Name())
	return c.finish(ctx, job, err)
}

// listTable replies with chosen columns of all qubes. The payload names them,
// one on each line:
//
//	property:NAME  a property's value
//	feature:NAME   a feature of the qube's own
//	tags           its tags, separated by spaces
//	memory         memory in use in KiB, when it runs
//	cpu            percent of one processor, when it runs
//
// The reply has a line for each qube, dom0 first: name, class, state, uuid and
// the columns, separated by tabs. A column is "-" when the qube has none, else
// "=" and the text with \\, \n and \t for backslash, newline and tab.
func listTable(_ context.Context, c *call) (string, error) {
	rows := map[qube.Class]map[string]qube.Property{}
	var columns []column
	for _, word := range strings.Split(string(c.req.Payload), "\n") {
		col, err := parseColumn(word, rows)
		if err != nil {
			return "", core.Failf(core.ProtocolViolation, "unknown column %q", printable(word))
		}
		columns = append(columns, col)
	}
	list := append([]core.Qube{c.dest}, c.view.Qubes()...)
	var b strings.Builder
	for _, q := range list {
		if !c.allows("admin.vm.List", "", q) {
			continue
		}
		b.WriteString(string(q.Name()) + "\t" + string(q.Class()) + "\t" + string(q.State()) + "\t" + string(q.UUID()))
		for _, col := range columns {
			if text, ok := col(q); ok {
				b.WriteString("\t=" + escapeCell(text))
			} else {
				b.WriteString("\t-")
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

func parseColumn(word string, rows map[qube.Class]map[string]qube.Property) (column, error) {
	kind, name, named := strings.Cut(word, ":")
	switch {
	case kind == "property" && named:
		return func(q core.Qube) (string, bool) {
			table, ok := rows[q.Class()]
			if !ok { // finding a row by name makes the whole table each time
				table = map[string]qube.Property{}
				for _, r := range qube.Rows(q.Class()) {
					table[r.Name] = r
				}
				rows[q.Class()] = table
			}
			row, ok := table[name]
			if !ok {
				return "", false
			}
			value, _ := row.Value(q)
			return value, true
		}, nil
	case kind == "feature" && named:
		return func(q core.Qube) (string, bool) { return q.Feature(name) }, nil
	case word == "tags":
		return func(q core.Qube) (string, bool) { return strings.Join(q.Tags(), " "), true }, nil
	case word == "memory":
		return func(q core.Qube) (string, bool) { return strconv.FormatInt(q.MemoryUsed()>>10, 10), measured(q) }, nil
	case word == "cpu":
		return func(q core.Qube) (string, bool) { return strconv.FormatFloat(q.CPUUsage(), 'f', 0, 64), measured(q) }, nil
	}
	return nil, errNoColumn
}

// measured reports whether there are measurements of a qube: it runs, and is
// not dom0.
func measured(q core.Qube) bool { return !q.IsAdmin() && q.XID() >= 0 }

func escapeCell(text string) string {
	if !strings.ContainsAny(text, "\\\n\t") {
		return text
	}
	return strings.ReplaceAll(escape(text), "\t", `\t`)
}
