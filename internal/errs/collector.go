package errs

import "fmt"

// Collector gathers all faults of a request, so that a person mends them in one go. The zero value is ready; it belongs
// to one goroutine.
//
//	var c errs.Collector
//	c.Add("replicas", "%d is below 0", n)
//	return c.Err(`create service "web"`)
type Collector struct {
	faults []Fault
}

// Add notes one fault.
func (c *Collector) Add(field, format string, args ...any) {
	c.faults = append(c.faults, Fault{Field: field, Reason: fmt.Sprintf(format, args...)})
}

// Check notes the fault unless ok.
func (c *Collector) Check(ok bool, field, format string, args ...any) {
	if !ok {
		c.Add(field, format, args...)
	}
}

// Merge notes the faults of err below the field prefix ("tls" and "ca" become "tls.ca"). An error without faults becomes
// one fault of the prefix. Nil is ignored.
func (c *Collector) Merge(prefix string, err error) {
	if err == nil {
		return
	}
	faults := FaultsOf(err)
	if len(faults) == 0 {
		c.Add(prefix, "%s", err.Error())
		return
	}
	for _, f := range faults {
		c.faults = append(c.faults, Fault{Field: join(prefix, f.Field), Reason: f.Reason})
	}
}

// join leaves out the dot where a side is empty or the inner path starts with an index.
func join(prefix, field string) string {
	if prefix == "" || field == "" || field[0] == '[' {
		return prefix + field
	}
	return prefix + "." + field
}

// Len is the number of faults noted so far.
func (c *Collector) Len() int { return len(c.faults) }

// List is a copy of the faults noted so far, to put into an error of another kind by WithFaults.
func (c *Collector) List() []Fault { return append([]Fault(nil), c.faults...) }

// Err is one Invalid error of all faults, or nil if there are none.
func (c *Collector) Err(what string) error { return Faults(what, c.List()...) }
