package admin

import (
	"context"
	"encoding/json"
	"sync"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// internalMethods are those of the internal socket (spec/admin-api.md §2.7).
func internalMethods() map[string]method {
	return map[string]method{
		"internal.GetSystemInfo":         {onDom0, absent, absent, systemInfo},
		"internal.SuspendPre":            {onDom0, absent, absent, suspendPre},
		"internal.SuspendPost":           {onDom0, absent, absent, suspendPost},
		"internal.vm.volume.ImportBegin": {onAny, needed, maybe, importBegin},
		"internal.vm.volume.ImportEnd":   {onAny, needed, needed, importEnd},
	}
}

func suspendPre(ctx context.Context, c *call) (string, error) { return "", c.core.SuspendAll(ctx) }

func suspendPost(ctx context.Context, c *call) (string, error) { return "", c.core.ResumeAll(ctx) }

// domainInfo is what the policy engine knows of a qube (spec/admin-api.md §2.7).
type domainInfo struct {
	Internal           bool     `json:"internal"`
	Tags               []string `json:"tags"`
	Type               string   `json:"type"`
	TemplateForDispVMs bool     `json:"template_for_dispvms"`
	DefaultDispVM      *string  `json:"default_dispvm"`
	Icon               string   `json:"icon"`
	Label              string   `json:"label"`
	GuiVM              *string  `json:"guivm"`
	RelayVM            *string  `json:"relayvm"`
	TransportRPC       *string  `json:"transport_rpc"`
	PowerState         string   `json:"power_state"`
	UUID               string   `json:"uuid"`
}

// infoCache keeps the last answer of GetSystemInfo, which the policy asks for
// at each call.
type infoCache struct {
	mu     sync.Mutex // guards what follows
	change uint64
	text   string
}

// get returns the text for a View. Two Views with one number have one text.
func (i *infoCache) get(v *core.View) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.text != "" && i.change == v.Change() {
		return i.text, nil
	}
	text, err := describeSystem(v)
	if err == nil {
		i.change, i.text = v.Change(), text
	}
	return text, err
}

func systemInfo(_ context.Context, c *call) (string, error) { return c.info.get(c.view) }

func describeSystem(v *core.View) (string, error) {
	admin, _ := v.Lookup(qube.Dom0UUID)
	domains := map[string]domainInfo{}
	for _, q := range append([]core.Qube{admin}, v.Qubes()...) {
		hidden, _ := q.Feature("internal")
		domains[string(q.Name())] = domainInfo{
			Internal:           hidden != "",
			Tags:               append([]string{}, q.Tags()...),
			Type:               string(q.Class()),
			TemplateForDispVMs: q.Property("template_for_dispvms") == "True",
			DefaultDispVM:      optional(q.Property("default_dispvm")),
			Icon:               q.Property("icon"),
			Label:              q.Label().Hex(),
			GuiVM:              optional(q.Property("guivm")),
			RelayVM:            optional(q.Property("relayvm")),
			TransportRPC:       optional(q.Property("transport_rpc")),
			PowerState:         string(q.State()),
			UUID:               string(q.UUID()),
		}
	}
	raw, err := json.Marshal(map[string]any{"domains": domains})
	return string(raw), err
}

// optional is a text that is null when it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
