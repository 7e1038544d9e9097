package client_test

import (
	"slices"
	"testing"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/client"
)

func TestGatewaysComeAndGo(t *testing.T) {
	at := func(address string, drain bool) *controlv1.ListedMember {
		return &controlv1.ListedMember{Member: &typesv1.Member{Addresses: []string{address}, Spec: &typesv1.MemberSpec{Drain: drain}}}
	}
	for name, c := range map[string]struct {
		known   []string
		members []*controlv1.ListedMember
		want    []string
	}{
		"one came":        {[]string{"a:1"}, []*controlv1.ListedMember{at("b:1", false), at("a:1", false)}, []string{"a:1", "b:1"}},
		"one went":        {[]string{"a:1", "b:1"}, []*controlv1.ListedMember{at("b:1", false)}, []string{"b:1"}},
		"one is drained":  {[]string{"a:1", "b:1"}, []*controlv1.ListedMember{at("a:1", true), at("b:1", false)}, []string{"b:1", "a:1"}},
		"all are drained": {[]string{"a:1", "b:1"}, []*controlv1.ListedMember{at("a:1", true), at("b:1", true)}, []string{"a:1", "b:1"}},
		"without a port":  {[]string{"a"}, []*controlv1.ListedMember{at("a:2384", false)}, []string{"a", "a:2384"}},
		"none is told":    {[]string{"a:1"}, nil, []string{"a:1"}},
	} {
		if got := client.Gateways(c.known, c.members); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, wanted %v", name, got, c.want)
		}
	}
}
