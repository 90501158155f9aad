package client

import (
	"context"
	"strings"
)

// Property is a property as the Admin API tells it.
type Property struct {
	Name    string
	Default bool
	Type    string
	Value   string
}

// Properties are all properties of a qube by name; dest empty: those of the
// system.
func (c *Client) Properties(ctx context.Context, dest string) (map[string]Property, error) {
	text, err := c.property(ctx, dest, "GetAll", "", nil)
	if err != nil {
		return nil, err
	}
	all := map[string]Property{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue
		}
		p := parseProperty(unescape(rest))
		p.Name = name
		all[name] = p
	}
	return all, nil
}

// Property is one property.
func (c *Client) Property(ctx context.Context, dest, name string) (Property, error) {
	text, err := c.property(ctx, dest, "Get", name, nil)
	if err != nil {
		return Property{}, err
	}
	p := parseProperty(text)
	p.Name = name
	return p, nil
}

// SetProperty sets a property.
func (c *Client) SetProperty(ctx context.Context, dest, name, value string) error {
	_, err := c.property(ctx, dest, "Set", name, []byte(value))
	return err
}

// ResetProperty puts a property back to its default.
func (c *Client) ResetProperty(ctx context.Context, dest, name string) error {
	_, err := c.property(ctx, dest, "Reset", name, nil)
	return err
}

// PropertyHelp says what a property means.
func (c *Client) PropertyHelp(ctx context.Context, dest, name string) (string, error) {
	return c.property(ctx, dest, "Help", name, nil)
}

func (c *Client) property(ctx context.Context, dest, what, name string, payload []byte) (string, error) {
	method := "admin.vm.property." + what
	if dest == "" {
		dest, method = "dom0", "admin.property."+what
	}
	return c.Call(ctx, dest, method, name, payload)
}

// parseProperty reads "default=True|False type=T VALUE".
func parseProperty(text string) Property {
	def, rest, _ := strings.Cut(text, " ")
	typ, value, _ := strings.Cut(rest, " ")
	return Property{Default: def == "default=True", Type: strings.TrimPrefix(typ, "type="), Value: value}
}
