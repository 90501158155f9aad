package core

import (
	"slices"

	"cubicle/daemon/qube"
)

// CreateLabel makes a label with a colour (0xRRGGBB); its index is the one
// after all others (spec/admin-api.md §2.1, §4).
func (c *Core) CreateLabel(name, color string) error {
	if err := qube.CheckLabelName(name); err != nil {
		return &Error{Kind: InvalidLabel, Text: err.Error()}
	}
	label, err := qube.NewLabel(name, color)
	if err != nil {
		return &Error{Kind: InvalidLabelValue, Text: err.Error()}
	}
	return c.update(func(t *tx) error {
		if _, exists := t.v.Label(name); exists {
			return Failf(LabelInUse, "there is a label %s already", name)
		}
		for _, l := range t.v.Labels() {
			label.Index = max(label.Index, l.Index+1)
		}
		t.setLabels(append(slices.Clone(t.v.system.Labels), label))
		return nil
	})
}

// RemoveLabel removes a label that people made and no qube has.
func (c *Core) RemoveLabel(name string) error {
	return c.update(func(t *tx) error {
		label, ok := t.v.Label(name)
		switch {
		case !ok:
			return Failf(LabelNotFound, "there is no label %q", name)
		case label.Index <= len(qube.Labels):
			return Failf(ProtocolViolation, "the label %s is built in", label.Name)
		}
		for _, q := range t.v.Qubes() {
			if q.Property("label") == label.Name {
				return Failf(LabelInUse, "%s has the label %s", q.Name(), label.Name)
			}
		}
		for _, r := range t.c.reserved {
			if r.Properties["label"] == label.Name {
				return Failf(LabelInUse, "a qube that is being made has the label %s", label.Name)
			}
		}
		t.setLabels(slices.DeleteFunc(slices.Clone(t.v.system.Labels), func(l qube.Label) bool { return l.Name == label.Name }))
		return nil
	})
}

// setLabels replaces the labels that people made; the event without a subject
// says that the system looks different.
func (t *tx) setLabels(labels []qube.Label) {
	t.v.system.Labels, t.system = labels, true
	t.events = append(t.events, Event{})
}
