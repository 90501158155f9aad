package client

import "context"

// SizeOf begins the key of CreateQube's properties that holds the bytes of a
// volume.
const SizeOf = "volume-size:"

// App is a desktop entry of a qube; its texts are the qube's, cleaned.
type App struct {
	ID      string // for StartApp
	Name    string
	Comment string
}

// Property is a row of the property table.
type Property struct {
	Name     string
	Type     string // spec/admin-api.md §2.2
	Value    string
	Default  bool // the value is the default
	Settable bool // now
	Help     string
}

// DraftProperties are the rows that can be chosen for a new qube, with the
// values that it has unless told otherwise. An empty template is the default
// one.
func (c *Client) DraftProperties(ctx context.Context, class, template string) ([]Property, error) {
	var rows []Property
	err := c.call(ctx, RootPath, ManagerInterface+".DraftProperties", []any{&rows}, class, template)
	return rows, err
}

// CheckProperty tells what is wrong with a text for a property of a new qube,
// and returns the value that it would become.
func (c *Client) CheckProperty(ctx context.Context, class, template, name, value string) (string, error) {
	var checked string
	err := c.call(ctx, RootPath, ManagerInterface+".CheckProperty", []any{&checked}, class, template, name, value)
	return checked, err
}

// DiskSpace is the size of the default pool and what is used of it, in bytes;
// 0 where the pool cannot tell.
func (c *Client) DiskSpace(ctx context.Context) (size, used uint64, err error) {
	err = c.call(ctx, RootPath, ManagerInterface+".DiskSpace", []any{&size, &used})
	return size, used, err
}

// Apps are the desktop entries of the qube, by name.
func (c *Client) Apps(ctx context.Context, uuid string) ([]App, error) {
	var apps []App
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Apps", []any{&apps})
	return apps, err
}

// Console returns the last lines of the qube's console: the qube's own bytes,
// to be cleaned before they are shown.
func (c *Client) Console(ctx context.Context, uuid string, lines uint32) ([]byte, error) {
	var text []byte
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Console", []any{&text}, lines)
	return text, err
}

// Messages are what qubesd said of the qube lately, oldest first.
func (c *Client) Messages(ctx context.Context, uuid string, lines uint32) ([]string, error) {
	var list []string
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Messages", []any{&list}, lines)
	return list, err
}

// Notes is the text that people keep with the qube.
func (c *Client) Notes(ctx context.Context, uuid string) (string, error) {
	var text string
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Notes", []any{&text})
	return text, err
}

// SetNotes replaces it.
func (c *Client) SetNotes(ctx context.Context, uuid, text string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".SetNotes", nil, text)
}

// Properties are all rows of the qube, by name.
func (c *Client) Properties(ctx context.Context, uuid string) ([]Property, error) {
	var rows []Property
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Properties", []any{&rows})
	return rows, err
}

// Resize grows a volume of the halted qube to so many bytes.
func (c *Client) Resize(ctx context.Context, uuid, volume string, bytes uint64) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".Resize", nil, volume, bytes)
}

// Revert makes an older revision of a volume of the halted qube current.
func (c *Client) Revert(ctx context.Context, uuid, volume, revision string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".Revert", nil, volume, revision)
}

// KeepRevision makes an older revision of a volume stay until it is let go, or
// lets it go.
func (c *Client) KeepRevision(ctx context.Context, uuid, volume, revision string, keep bool) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".KeepRevision", nil, volume, revision, keep)
}

// Features are the qube's own features.
func (c *Client) Features(ctx context.Context, uuid string) (map[string]string, error) {
	features := map[string]string{}
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Features", []any{&features})
	return features, err
}

// SetFeature sets one.
func (c *Client) SetFeature(ctx context.Context, uuid, name, value string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".SetFeature", nil, name, value)
}

// RemoveFeature takes one away.
func (c *Client) RemoveFeature(ctx context.Context, uuid, name string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".RemoveFeature", nil, name)
}

// Firewall are the qube's rules, in order, as upstream writes them
// (spec/platform.md §5.1).
func (c *Client) Firewall(ctx context.Context, uuid string) ([]string, error) {
	var rules []string
	err := c.call(ctx, QubePath(uuid), QubeInterface+".Firewall", []any{&rules})
	return rules, err
}

// SetFirewall replaces all rules.
func (c *Client) SetFirewall(ctx context.Context, uuid string, rules []string) error {
	return c.call(ctx, QubePath(uuid), QubeInterface+".SetFirewall", nil, rules)
}
