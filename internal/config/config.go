// Package config loads a process's one YAML file, strictly.
//
// It owns the rule that a mistake in a file is told at the start, with its place, and all mistakes at once: unknown and
// repeated keys, values of a wrong type, and what Validate says. It never reads environment variables. Its functions
// keep no state.
package config

import (
	"errors"
	"io/fs"
	"reflect"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"github.com/shoalproject/shoal/internal/errs"
)

// Files is the part of run.Files that loading needs.
type Files interface {
	Read(name string) ([]byte, error)
}

// Validator is what a config type implements to have its values checked: all faults in one error, as errs.Collector
// makes it.
type Validator interface {
	Validate() error
}

// Load reads the file at path over the defaults in def and validates the result. A key that the file leaves out keeps its
// default. Errors are of kind NotFound (no such file) or Invalid (all faults, each with its line and column).
func Load[C any](files Files, path string, def C) (C, error) {
	var none C
	data, err := files.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, errs.New(errs.NotFound, "config file %s does not exist; name another one with -config: %w", path, err)
	}
	if err != nil {
		return none, errs.New(errs.Unavailable, "read config file %s: %w", path, err)
	}
	cfg, err := Parse(path, data, def)
	if err != nil {
		return none, err
	}
	return cfg, nil
}

// Parse is Load for a text that is at hand; name is only told in errors. Def is the caller's alone: maps, slices and
// pointers in it may be written to.
func Parse[C any](name string, data []byte, def C) (C, error) {
	var none C
	cfg := def
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // the decoder tells those, with the rest
	if err != nil {
		return none, errs.New(errs.Invalid, "config file %s: %s", name, yaml.FormatError(err, false, false))
	}
	body, err := only(file)
	if err != nil {
		return none, errs.New(errs.Invalid, "config file %s: %w", name, err)
	}
	d := newDecoder()
	if body != nil { // an empty file is all defaults
		d.value("", body, reflect.ValueOf(&cfg).Elem())
	}
	switch err := Check(&cfg); {
	case len(errs.FaultsOf(err)) > 0:
		d.merge(err)
	case err != nil && d.faults.Len() == 0:
		return none, errs.New(errs.Invalid, "config file %s: %w", name, err)
	}
	if err := d.faults.Err("config file " + name); err != nil {
		return none, err
	}
	return cfg, nil
}

// Check calls Validate if the config, or the pointer to it, has one.
func Check[C any](cfg *C) error {
	if v, ok := any(cfg).(Validator); ok {
		return v.Validate()
	}
	return nil
}
