package core

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cubicle/daemon/qube"
	"cubicle/daemon/storage"
	"cubicle/daemon/vchan"
)

// facts are what a restarted qubesd must know of a running machine. They are
// kept in Config.Runs.
type facts struct {
	UUID    qube.UUID      `json:"uuid"`
	Name    qube.Name      `json:"name"` // tells which qube it is when its file is damaged
	Domain  vchan.Domain   `json:"domain"`
	Engine  string         `json:"engine"`
	Started time.Time      `json:"started"`
	Volumes []startedImage `json:"volumes"`
}

type startedImage struct {
	Pool   string       `json:"pool"`
	Spec   storage.Spec `json:"spec"`
	Always bool         `json:"always"` // commit also after a disorderly end
}

func (c *Core) factsPath(id qube.UUID) string {
	return filepath.Join(c.cfg.Runs, string(id)+".json")
}

// halfFacts ends the name of a file of facts that is being written.
const halfFacts = ".new"

func (c *Core) saveFacts(f facts) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	// The folder does not survive a reboot and neither does the machine, so
	// that the rename alone is enough.
	tmp := c.factsPath(f.UUID) + halfFacts
	err = os.WriteFile(tmp, raw, 0o600)
	if err == nil {
		err = os.Rename(tmp, c.factsPath(f.UUID))
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

func (c *Core) dropFacts(id qube.UUID) error {
	if err := os.Remove(c.factsPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *Core) loadFacts() (map[qube.UUID]facts, error) {
	if err := os.MkdirAll(c.cfg.Runs, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.cfg.Runs)
	if err != nil {
		return nil, err
	}
	all := map[qube.UUID]facts{}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), halfFacts) {
			if err := os.Remove(filepath.Join(c.cfg.Runs, e.Name())); err != nil {
				return nil, err
			}
		}
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(c.cfg.Runs, e.Name()))
		if err != nil {
			return nil, err
		}
		var f facts
		if err := json.Unmarshal(raw, &f); err != nil || string(f.UUID) != id {
			c.log.Error("facts of a run are damaged", "file", e.Name(), "error", err)
			continue
		}
		all[f.UUID] = f
	}
	return all, nil
}
