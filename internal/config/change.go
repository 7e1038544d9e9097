package config

import "reflect"

// BaseOf is the part of a config that every process has; false if the config does not embed a Base.
func BaseOf(cfg any) (Base, bool) {
	v := reflect.ValueOf(cfg)
	if v.Kind() != reflect.Struct {
		return Base{}, false
	}
	field := v.FieldByName("Base")
	if !field.IsValid() {
		return Base{}, false
	}
	base, ok := field.Interface().(Base)
	return base, ok
}

// Changed are the keys whose values differ, in the order of the struct.
func Changed[C any](from, to C) []string {
	a, b := reflect.ValueOf(from), reflect.ValueOf(to)
	if a.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	other := keysOf(b)
	for i, k := range keysOf(a) {
		if !reflect.DeepEqual(k.into.Interface(), other[i].into.Interface()) {
			names = append(names, k.name)
		}
	}
	return names
}
