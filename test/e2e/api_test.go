package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// curl asks the gateway from the outer machine with the operator's certificate, and returns status and body.
func (c *cluster) curl(args ...string) (status, body string) {
	c.t.Helper()
	certs := c.certs()
	base := []string{
		"-sS", "--max-time", "10", "-w", "\n%{http_code}", "--cert", filepath.Join(certs, "cert.pem"),
		"--key", filepath.Join(certs, "key.pem"), "--cacert", filepath.Join(certs, "ca.pem"),
	}
	out, err := exec.CommandContext(c.t.Context(), "curl", append(base, args...)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("curl %v: %v\n%s", args, err, out)
	}
	i := strings.LastIndex(string(out), "\n")
	return string(out[i+1:]), string(out[:i])
}

func (c *cluster) certs() string {
	c.t.Helper()
	vars, err := c.lab.Env()
	c.must(err)
	for _, v := range vars {
		if v.Name == "SHOAL_CERT_PATH" {
			return v.Value
		}
	}
	c.t.Fatal("the lab has no SHOAL_CERT_PATH")
	return ""
}

// A service is created, read, scaled and removed over REST; a body that makes no sense names its fields.
func TestREST(t *testing.T) {
	c := bring(t, 1, 1)
	gateway := "https://" + c.address("m1") + ":2384"
	spec := fmt.Sprintf(`{"spec":{"annotations":{"name":"web"},"task":{"container":{"image":%q}},
		"replicated":{"replicas":"2"},"endpoint":{"ports":[{"targetPort":8000}]}}}`, c.image("1.0.0"))
	status, body := c.curl("-d", spec, gateway+"/v1/services")
	if status != "200" {
		t.Fatalf("create: %s %s", status, body)
	}
	c.converged("web", 2, 30*time.Second)
	var got struct {
		Service struct {
			Meta struct{ ID string }
			Spec map[string]any
		}
		Version map[string]any
	}
	status, body = c.curl(gateway + "/v1/services/web")
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != "200" || len(got.Service.Meta.ID) != 25 {
		t.Fatalf("get: %s %s %v", status, body, err)
	}
	got.Service.Spec["replicated"] = map[string]string{"replicas": "3"}
	update, err := json.Marshal(map[string]any{"version": got.Version, "spec": got.Service.Spec})
	if err != nil {
		t.Fatal(err)
	}
	if status, body = c.curl("-X", "PUT", "-d", string(update), gateway+"/v1/services/web"); status != "200" {
		t.Fatalf("update: %s %s", status, body)
	}
	c.converged("web", 3, 30*time.Second)
	// The same version again is out of sequence.
	if status, body = c.curl("-X", "PUT", "-d", string(update), gateway+"/v1/services/web"); status != "409" || !strings.Contains(body, "update out of sequence") {
		t.Errorf("stale update: %s %s, want 409 update out of sequence", status, body)
	}
	status, body = c.curl("-d", `{"spec":{"annotations":{"name":"-bad-"},"endpoint":{"ports":[{"targetPort":70000}]}}}`, gateway+"/v1/services")
	for _, field := range []string{`"field":"name"`, `"field":"image"`, `"field":"ports[0].target_port"`} {
		if status != "400" || !strings.Contains(body, field) {
			t.Errorf("bad spec: %s %s, want 400 that names %s", status, body, field)
		}
	}
	if status, body = c.curl(gateway + "/openapi.json"); status != "200" || !strings.Contains(body, `"/v1/services"`) {
		t.Errorf("OpenAPI document: %s", status)
	}
	if status, body = c.curl("-X", "DELETE", gateway+"/v1/services/web"); status != "200" {
		t.Errorf("delete: %s %s", status, body)
	}
}

// grpcurl, an ordinary gRPC client that knows the API by reflection alone, reads and writes.
func TestGRPCurl(t *testing.T) {
	c := bring(t, 1, 0)
	certs := c.certs()
	call := func(data, method string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(root(t), "bin", "tools", "grpcurl"),
			"-cert", filepath.Join(certs, "cert.pem"), "-key", filepath.Join(certs, "key.pem"),
			"-cacert", filepath.Join(certs, "ca.pem"), "-d", data, c.address("m1")+":2384", method).CombinedOutput()
		if err != nil {
			t.Fatalf("grpcurl %s: %v\n%s", method, err, out)
		}
		return string(out)
	}
	call(`{"spec":{"annotations":{"name":"back"},"driver":"overlay"}}`, "shoal.control.v1.NetworkService/CreateNetwork")
	if out := call(`{}`, "shoal.control.v1.NetworkService/ListNetworks"); !strings.Contains(out, `"back"`) {
		t.Errorf("list: %s", out)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Bad input is refused in the call with every fault named, and nothing is made.
func TestRefusals(t *testing.T) {
	c := bring(t, 1, 0)
	c.shoal("service", "create", "--name", "micro", "-p", "30000:8000", c.image("1.0.0"))
	image := c.image("1.0.0")
	c.refused([]string{"unknown flag"}, "service", "create", "--no-such-flag", image)
	c.refused([]string{"-bad-"}, "service", "create", "--name", "-bad-", image)
	c.refused([]string{"image"}, "service", "create", "--name", "bad", "UPPER::case")
	c.refused([]string{"micro-nte"}, "service", "create", "--name", "bad", "--network", "micro-nte", image)
	c.refused([]string{"30000", "micro"}, "service", "create", "--name", "bad", "-p", "30000:8000", image)
	c.refused([]string{"70000"}, "service", "create", "--name", "bad", "-p", "70000:8000", image)
	c.refused([]string{"-1"}, "service", "create", "--name", "bad", "--replicas", "-1", image)
	c.refused([]string{"micro"}, "service", "create", "--name", "micro", image)
	c.refused([]string{"-bad-", "micro-nte", "30000"}, "service", "create", "--name", "-bad-", "--network", "micro-nte", "-p", "30000:8000", image)
	if got := strings.Fields(c.shoal("service", "ls", "--format", "{{.Name}}")); !slices.Equal(got, []string{"micro"}) {
		t.Errorf("services after the refusals: %v, want micro alone", got)
	}
	// An image that does not exist is the registry's to say: the task tells it, the rest goes on.
	c.shoal("service", "create", "--detach", "--name", "ghost", strings.Replace(image, "micro:", "ghost:", 1))
	until(t, "the registry's words are in service ps", 30*time.Second, func() string {
		rows := c.tasks("ghost", false)
		if !slices.ContainsFunc(rows, func(r taskRow) bool {
			return strings.HasPrefix(r.CurrentState, "Rejected") && strings.Contains(r.Error, "has no such image")
		}) {
			return fmt.Sprint(rows)
		}
		return ""
	})
	c.converged("micro", 1, 5*time.Second)
}
