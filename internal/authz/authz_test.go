package authz_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/control/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/store/v1"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

const (
	list   = "/shoal.control.v1.NodeService/ListNodes"
	commit = "/shoal.store.v1.CommitService/Commit"
)

func service(methods ...string) grpc.ServiceInfo {
	var info grpc.ServiceInfo
	for _, m := range methods {
		info.Methods = append(info.Methods, grpc.MethodInfo{Name: m})
	}
	return info
}

func registry(t *testing.T) *authz.Registry {
	t.Helper()
	r, err := authz.New(map[string]grpc.ServiceInfo{
		"shoal.control.v1.NodeService": service("ListNodes"), "shoal.store.v1.CommitService": service("Commit"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAServiceWithoutARuleKeepsTheServerFromStarting(t *testing.T) {
	_, err := authz.New(map[string]grpc.ServiceInfo{
		"shoal.control.v1.NodeService": service("ListNodes", "Misspelt"),
		"foreign.Service":              service("Do", "Undo"),
	})
	if n := len(errs.FaultsOf(err)); n != 3 {
		t.Fatalf("%d faults, wanted all 3: %v", n, err)
	}
}

func id(role authzv1.Role, name string) identity.ID {
	return identity.ID{Cluster: "c1", Role: role, Name: name}
}

func TestForwardedCalls(t *testing.T) {
	const (
		gatewayRole, storeRole, operatorRole = authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_OPERATOR
	)
	ann, sam := id(operatorRole, "ann"), id(authzv1.Role_ROLE_SCHEDULER, "s")
	gateway, store, second := id(gatewayRole, "g"), id(storeRole, "a"), id(storeRole, "b")
	alien := identity.ID{Cluster: "c2", Role: operatorRole, Name: "ann"}
	for name, c := range map[string]struct {
		method string
		caller authz.Caller
		peer   identity.ID
		may    bool
	}{
		"a person, directly":                          {list, authz.Caller{Principal: ann}, ann, true},
		"a person by a gateway":                       {list, authz.Caller{Principal: ann, Via: []identity.ID{gateway}}, gateway, true},
		"a person by a gateway and a store":           {list, authz.Caller{Principal: ann, Via: []identity.ID{gateway, store}}, store, true},
		"a person by two stores":                      {list, authz.Caller{Principal: ann, Via: []identity.ID{store, second}}, second, true},
		"a scheduler by a store":                      {commit, authz.Caller{Principal: sam, Via: []identity.ID{store}}, store, true},
		"a gateway for itself":                        {list, authz.Caller{Principal: gateway}, gateway, false},
		"a scheduler by a gateway":                    {commit, authz.Caller{Principal: sam, Via: []identity.ID{gateway}}, gateway, false},
		"a scheduler by a gateway, then a store":      {commit, authz.Caller{Principal: sam, Via: []identity.ID{gateway, store}}, store, false},
		"a person by a gateway in the middle":         {list, authz.Caller{Principal: ann, Via: []identity.ID{store, gateway}}, gateway, false},
		"a person by two gateways":                    {list, authz.Caller{Principal: ann, Via: []identity.ID{gateway, id(gatewayRole, "h")}}, id(gatewayRole, "h"), false},
		"a person by a scheduler":                     {list, authz.Caller{Principal: ann, Via: []identity.ID{sam}}, sam, false},
		"a person by a scheduler, then a store":       {list, authz.Caller{Principal: ann, Via: []identity.ID{sam, store}}, store, false},
		"a person of another cluster":                 {list, authz.Caller{Principal: alien, Via: []identity.ID{gateway}}, gateway, false},
		"a path that does not end with who brings it": {list, authz.Caller{Principal: ann, Via: []identity.ID{gateway}}, store, false},
		"somebody else without a path":                {list, authz.Caller{Principal: ann}, sam, false},
		"a person who passes on for a person":         {list, authz.Caller{Principal: id(operatorRole, "bob"), Via: []identity.ID{ann}}, ann, false},
		"nobody":                                      {list, authz.Caller{Principal: identity.ID{Role: authzv1.Role_ROLE_ANONYMOUS}}, identity.ID{}, false},
		"a method that is not there":                  {list + "x", authz.Caller{Principal: ann}, ann, false},
		"a method without its slash":                  {strings.TrimPrefix(list, "/"), authz.Caller{Principal: ann}, ann, false},
	} {
		err := registry(t).Check(c.method, c.caller, authz.Peer{ID: c.peer})
		if (err == nil) != c.may || err != nil && !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnExpiredLeafIsForThoseWhomTheRuleNames(t *testing.T) {
	for _, c := range []struct {
		role   authzv1.Role
		method string
		may    bool
	}{
		{authzv1.Role_ROLE_CA, commit, true},
		{authzv1.Role_ROLE_STORE, commit, true},
		{authzv1.Role_ROLE_SCHEDULER, commit, false},
		{authzv1.Role_ROLE_OPERATOR, list, false},
	} {
		who := id(c.role, "x")
		if err := registry(t).Check(c.method, authz.Caller{Principal: who}, authz.Peer{ID: who, Expired: true}); (err == nil) != c.may {
			t.Errorf("%s: %v", who, err)
		}
	}
}
