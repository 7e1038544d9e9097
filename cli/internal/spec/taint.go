package spec

import (
	"slices"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Taints puts `KEY[=VALUE][:EFFECT]` entries over a node's; one of the same key and effect takes the old one's place.
func Taints(entries []string, taints []*typesv1.Taint) ([]*typesv1.Taint, error) {
	for _, entry := range entries {
		t, err := parseTaint(entry)
		if err != nil {
			return taints, err
		}
		taints = slices.DeleteFunc(taints, func(old *typesv1.Taint) bool { return old.GetKey() == t.GetKey() && old.GetEffect() == t.GetEffect() })
		taints = append(taints, t)
	}
	return taints, nil
}

// WithoutTaints removes those of a `KEY`, or of `KEY:EFFECT`.
func WithoutTaints(entries []string, taints []*typesv1.Taint) ([]*typesv1.Taint, error) {
	for _, entry := range entries {
		gone, err := parseTaint(entry)
		if err != nil {
			return taints, err
		}
		before := len(taints)
		taints = slices.DeleteFunc(taints, func(t *typesv1.Taint) bool {
			return t.GetKey() == gone.GetKey() && (!strings.Contains(entry, ":") || t.GetEffect() == gone.GetEffect())
		})
		if len(taints) == before {
			return taints, errs.New(errs.Invalid, "there is no taint %q to remove", entry)
		}
	}
	return taints, nil
}

func parseTaint(entry string) (*typesv1.Taint, error) {
	body, effect, given := strings.Cut(entry, ":")
	key, value, _ := strings.Cut(body, "=")
	t := &typesv1.Taint{Key: key, Value: value, Effect: typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE}
	if given {
		effects := map[string]typesv1.TaintEffect{
			"no-schedule": typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE, "no-execute": typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE,
			"prefer-no-schedule": typesv1.TaintEffect_TAINT_EFFECT_PREFER_NO_SCHEDULE,
		}
		if t.Effect = effects[effect]; t.Effect == typesv1.TaintEffect_TAINT_EFFECT_UNSPECIFIED {
			return nil, errs.New(errs.Invalid, "%q: %q is not no-schedule, no-execute or prefer-no-schedule", entry, effect)
		}
	}
	if key == "" {
		return nil, errs.New(errs.Invalid, "%q has no key; write KEY[=VALUE][:EFFECT]", entry)
	}
	return t, nil
}
