package bus

import (
	"fmt"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// settings answers what is set of one qube: by method, since it is much and
// rarely asked for. An Event tells when it changes.
func (m *member) settings(id qube.UUID, args []any) ([]any, error) {
	c := m.s.core
	switch m.spec.name {
	case "Properties":
		return rowsResult(c.Properties(id))
	case "SetProperty":
		return nil, c.SetProperty(id, args[0].(string), args[1].(string))
	case "ResetProperty":
		return nil, c.ResetProperty(id, args[0].(string))
	case "SetFeature":
		return nil, c.SetFeature(id, args[0].(string), args[1].(string))
	case "RemoveFeature":
		return nil, c.RemoveFeature(id, args[0].(string))
	case "AddTag":
		return nil, c.SetTag(id, args[0].(string))
	case "RemoveTag":
		return nil, c.RemoveTag(id, args[0].(string))
	}
	q, ok := c.View().Lookup(id)
	if !ok {
		return nil, core.Failf(core.NotFound, "the qube is gone")
	}
	switch m.spec.name {
	case "Features":
		return []any{q.Features()}, nil
	case "Tags":
		return []any{append([]string{}, q.Tags()...)}, nil
	}
	return nil, fmt.Errorf("unknown method %s", m.spec.name)
}

// row is a property as it is sent.
type row struct {
	Name, Type, Value string
	Default, Settable bool
	Help              string
}

func rowsResult(rows []core.PropertyRow, err error) ([]any, error) {
	list := []row{}
	for _, r := range rows {
		list = append(list, row{r.Row.Name, string(r.Row.Type), r.Value, r.IsDefault, r.Settable, r.Row.Help})
	}
	return []any{list}, err
}
