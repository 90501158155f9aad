package core_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"cubicle/daemon/core"
	"cubicle/daemon/core/coretest"
	"cubicle/daemon/qube"
	"cubicle/daemon/store"
)

// many is a system with so many app qubes on one template and one network.
func many(b *testing.B, n int) *coretest.System {
	b.Helper()
	dir := b.TempDir()
	st, err := store.Open(filepath.Join(dir, "state"))
	if err != nil {
		b.Fatal(err)
	}
	for i := range n + 2 {
		r := store.Record{Name: qube.Name(fmt.Sprintf("qube-%d", i)), UUID: qube.NewUUID(), QID: i + 1, Class: qube.AppVM,
			Properties: map[string]string{"label": "red", "template": "qube-0", "netvm": "qube-1"}}.Clone()
		switch i {
		case 0:
			r.Class, r.Properties = qube.TemplateVM, map[string]string{"label": "black"}
		case 1:
			r.Properties["netvm"], r.Properties["provides_network"] = "", "True"
		}
		if err := st.Save(r); err != nil {
			b.Fatal(err)
		}
	}
	s := again(b, coretest.New(), dir)
	b.Cleanup(s.Close)
	return s
}

func BenchmarkCore(b *testing.B) {
	for _, n := range []int{200, 2000} {
		s := many(b, n)
		q, _ := s.View().Named("qube-7")
		template, _ := s.View().Named("qube-0")
		net, _ := s.View().Named("qube-1")
		for _, c := range []struct {
			name string
			do   func(i int) error
		}{
			{"Get", func(int) error { s.View(); q.Property("visible_gateway"); return nil }},
			{"GetAll", func(int) error { _, err := s.Properties(q.UUID()); return err }},
			{"List", func(int) error {
				for _, o := range s.View().Qubes() {
					o.State()
				}
				return nil
			}},
			{"Set", func(i int) error { return s.SetProperty(q.UUID(), "memory", fmt.Sprint(400+i)) }},
			{"SetOfTemplate", func(i int) error { return s.SetProperty(template.UUID(), "memory", fmt.Sprint(400+i)) }},
			{"SetFeatureOfNetwork", func(i int) error { return s.SetFeature(net.UUID(), "net.fake-ip", fmt.Sprintf("10.0.0.%d", i%250+1)) }},
			{"SetSystem", func(i int) error { return s.SetSystemProperty("default_qrexec_timeout", fmt.Sprint(60+i)) }},
		} {
			b.Run(fmt.Sprintf("%s-%d", c.name, n), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if err := c.do(i); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("Open-%d", n), func(b *testing.B) {
			s.Close()
			for b.Loop() {
				w := coretest.New()
				o, err := coretest.Start(w, s.Dir, core.WallClock{})
				if err != nil {
					b.Fatal(err)
				}
				o.Close()
			}
		})
	}
}
