package apply_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestPortIsAnnouncedBeforeItIsOpen: when somebody listens, the administrator's chain is asked already. What it was asked by gives way to what
// the port gets.
func TestPortIsAnnouncedBeforeItIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		var opened int
		m.opened = func(fresh []mesh.Listener) {
			if opened += len(fresh); len(fresh) > 0 && m.tables.Elements("listened4") == 0 {
				t.Errorf("%s is open before anybody is asked", fresh)
			}
		}
		l, stop := m.start(t)
		defer stop()
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, led := m.tables.Elements("listened4"), m.tables.Elements("ports4"); n != 0 || led != 1 {
			t.Errorf("listened4 has %d elements and ports4 %d, want that the kernel carries the port", n, led)
		}
		r := full(8)
		r.Services[0].Ports[0].PublishedPort = 30001
		r.Services[0].Ports[0].Dataplane = typesv1.Dataplane_DATAPLANE_USERSPACE
		if err := l.Take(r); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, led := m.tables.Elements("listened4"), m.tables.Elements("ports4"); n != 1 || led != 0 || opened != 2 {
			t.Errorf("listened4 has %d elements and ports4 %d, %d were opened, want one of two", n, led, opened)
		}
	})
}

// TestPortIsNotOpenUnannounced: where the tables are in force and cannot be changed, nobody listens until they can.
func TestPortIsNotOpenUnannounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		defer stop()
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.tables.Fail(errors.New("busy"))
		r := full(8)
		r.Services[0].Ports[0].PublishedPort = 30001
		if err := l.Take(r); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.open()[0].Port != 30000 {
			t.Error("it is open")
		}
		m.tables.Fail(nil)
		time.Sleep(1100 * time.Millisecond)
		if m.open()[0].Port != 30001 || revision(l) != 8 {
			t.Errorf("%v are open, revision %d, once the tables work", m.open(), revision(l))
		}
	})
}
