package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// The oldest Envoy that the project is tested with, and the oldest that `make test` accepts.
const (
	minEnvoyMajor = 1
	minEnvoyMinor = 38
)

// FindEnvoy returns the path of an Envoy that is at least version 1.38: the one that the environment variable
// EXTAUTHZ_ENVOY names; else the one that `make tools` has put at .tools/bin/envoy; else one on the PATH.
// Where EXTAUTHZ_ENVOY names a bad one, that is an error and no other is looked for.
func FindEnvoy(ctx context.Context) (string, error) {
	if path := os.Getenv("EXTAUTHZ_ENVOY"); path != "" {
		if err := checkEnvoy(ctx, path); err != nil {
			return "", fmt.Errorf("lab: EXTAUTHZ_ENVOY: %w", err)
		}
		return path, nil
	}
	var complaints []error
	if root, err := Root(); err == nil {
		path := filepath.Join(root, ".tools", "bin", "envoy")
		err := checkEnvoy(ctx, path)
		if err == nil {
			return path, nil
		}
		complaints = append(complaints, err)
	}
	path, err := exec.LookPath("envoy")
	if err == nil {
		if err = checkEnvoy(ctx, path); err == nil {
			return path, nil
		}
	}
	complaints = append(complaints, err)
	return "", fmt.Errorf("lab: found no Envoy to run; `make tools` brings one: %w", errors.Join(complaints...))
}

// Skip skips a test for what this machine does not have, or fails it where the environment variable EXTAUTHZ_NO_SKIPS is
// "1", as CI sets it.
func Skip(tb testing.TB, why ...any) {
	tb.Helper()
	if os.Getenv("EXTAUTHZ_NO_SKIPS") == "1" {
		tb.Fatal(why...)
	}
	tb.Skip(why...)
}

// NeedCurl skips a test of commands that are for people who have curl.
func NeedCurl(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		Skip(tb, "there is no curl (package curl) to run the commands with")
	}
}

// NeedEnvoy returns what FindEnvoy finds. Without an Envoy the test is skipped, or fails where the environment variable
// EXTAUTHZ_REQUIRE_ENVOY is "1", as `make test` sets it.
func NeedEnvoy(tb testing.TB) string {
	tb.Helper()
	path, err := FindEnvoy(tb.Context())
	if err == nil {
		return path
	}
	if os.Getenv("EXTAUTHZ_REQUIRE_ENVOY") == "1" {
		tb.Fatal(err)
	}
	Skip(tb, err)
	return ""
}

// envoyVersion finds the version in what `envoy --version` prints: "… version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL".
var envoyVersion = regexp.MustCompile(`/(\d+)\.(\d+)\.\d+[^/]*/`)

func checkEnvoy(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	found := envoyVersion.FindStringSubmatch(string(out))
	if found == nil {
		return fmt.Errorf("%s --version: found %q, want a version such as 1.40.0", path, strings.TrimSpace(string(out)))
	}
	major, _ := strconv.Atoi(found[1]) // the expression has made sure that these are digits
	minor, _ := strconv.Atoi(found[2])
	if major != minEnvoyMajor || minor < minEnvoyMinor {
		return fmt.Errorf("%s: found version %d.%d, want at least %d.%d", path, major, minor, minEnvoyMajor, minEnvoyMinor)
	}
	return nil
}

// EnvoyPorts are the TCP ports of 127.0.0.1 in an Envoy's configuration. A zero port is left as the file has it.
type EnvoyPorts struct {
	Listener int // where clients connect
	Admin    int // the admin interface
	Extauthz int // where the ext_authz filter finds extauthz
	Upstream int // where the protected service listens
}

// EnvoyConfig says which Envoy to run, and with what.
type EnvoyConfig struct {
	Binary     string     // path of the program. Default: what FindEnvoy finds
	ConfigFile string     // default: deploy/envoy/envoy.yaml of this project
	Ports      EnvoyPorts // put into the configuration
	Edits      []Edit     // further changes of the configuration, made in this order after the ports
	Dir        string     // gets the edited envoy.yaml, envoy.out and envoy.err. Must exist. Required
	// Healthy names clusters that must have a healthy host before StartEnvoy returns. Clusters without a health check are
	// healthy at once. Default: none.
	Healthy []string
}

// FailOpen makes Envoy let requests through when ext_authz fails: the setting under which a mistake of the service shows.
func FailOpen() []Edit {
	return []Edit{Set(ExtAuthzPath+"/failure_mode_allow", true)}
}

// PlainPaths switches all of Envoy's own care for paths and hosts off, so that the service meets what clients send.
func PlainPaths() []Edit {
	return []Edit{
		Set(HCMPath+"/normalize_path", false),
		Set(HCMPath+"/merge_slashes", false),
		Set(HCMPath+"/path_with_escaped_slashes_action", "KEEP_UNCHANGED"),
		Set(HCMPath+"/strip_any_host_port", false),
		Set(HCMPath+"/strip_trailing_host_dot", false),
	}
}

// PlainHeaders switches all of Envoy's own care for headers off, so that forged identity headers reach the service's check
// in every spelling, and its answers are taken as they are.
func PlainHeaders() []Edit {
	return []Edit{
		Remove(HCMPath + "/early_header_mutation_extensions"),
		Set(HCMPath+"/common_http_protocol_options/headers_with_underscores_action", "ALLOW"),
		Remove(ExtAuthzPath + "/decoder_header_mutation_rules"),
		Set(ExtAuthzPath+"/validate_mutations", false),
	}
}

// An Envoy is a running one.
type Envoy struct {
	*Process
	Address string // host and port for clients
	Admin   string // host and port of the admin interface
}

// URL returns "http://" and the address for clients.
func (e *Envoy) URL() string { return "http://" + e.Address }

// StartEnvoy runs Envoy and returns when it answers clients and the clusters of cfg.Healthy are up. Several can run at
// once. ctx bounds the start alone: the caller must end what StartEnvoy returned with Stop or Kill.
func StartEnvoy(ctx context.Context, cfg EnvoyConfig) (*Envoy, error) {
	binary, source, err := cfg.files(ctx)
	if err != nil {
		return nil, err
	}
	document, err := os.ReadFile(source)
	if err != nil {
		return nil, fmt.Errorf("lab: envoy: %w", err)
	}
	document, err = editYAML(document, append(cfg.portEdits(), cfg.Edits...))
	if err != nil {
		return nil, fmt.Errorf("lab: edit %s: %w", source, err)
	}
	e := &Envoy{}
	if e.Address, e.Admin, err = addresses(document); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", source, err)
	}
	edited := filepath.Join(cfg.Dir, "envoy.yaml")
	if err := os.WriteFile(edited, document, 0o600); err != nil {
		return nil, fmt.Errorf("lab: envoy: %w", err)
	}

	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary,
		"--config-path", edited,
		"--disable-hot-restart", // no shared memory, by which two Envoys of one machine would meet
		"--concurrency", "1",
		"--log-level", "warning",
		"--file-flush-interval-msec", "20", // of the access log; the default of 10 s is long for a test
	)
	if e.Process, err = startProcess("envoy", cfg.Dir, cmd); err != nil {
		return nil, err
	}
	if err := poll(ctx, e.Process, func(ctx context.Context) error { return e.ready(ctx, cfg.Healthy) }); err != nil {
		e.Kill()
		return nil, err
	}
	return e, nil
}

// files returns the program's path and the configuration's.
func (cfg *EnvoyConfig) files(ctx context.Context) (binary, config string, err error) {
	binary, config = cfg.Binary, cfg.ConfigFile
	if binary == "" {
		if binary, err = FindEnvoy(ctx); err != nil {
			return "", "", err
		}
	}
	if config == "" {
		root, err := Root()
		if err != nil {
			return "", "", err
		}
		config = filepath.Join(root, "deploy", "envoy", "envoy.yaml")
	}
	return binary, config, nil
}

const (
	listenerPortPath = ListenerPath + "/address/socket_address/port_value"
	adminPortPath    = "admin/address/socket_address/port_value"
)

// endpointPortPath is where a static cluster's only endpoint has its port.
func endpointPortPath(cluster string) string {
	return ClustersPath + "/" + cluster + "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value"
}

func (cfg *EnvoyConfig) portEdits() []Edit {
	var edits []Edit
	set := func(path string, port int) {
		if port != 0 {
			edits = append(edits, Set(path, port))
		}
	}
	set(listenerPortPath, cfg.Ports.Listener)
	set(adminPortPath, cfg.Ports.Admin)
	set(endpointPortPath("extauthz"), cfg.Ports.Extauthz)
	set(endpointPortPath("upstream"), cfg.Ports.Upstream)
	// Envoy's default would let two Envoys share a port and each get some of the connections.
	return append(edits, Add(ListenerPath+"/enable_reuse_port", false))
}

// addresses returns where the document makes Envoy listen for clients and for admin.
func addresses(document []byte) (client, admin string, err error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return "", "", err
	}
	if client, err = address(root.Content[0], listenerPortPath); err != nil {
		return "", "", err
	}
	admin, err = address(root.Content[0], adminPortPath)
	return client, admin, err
}

func address(node *yaml.Node, portPath string) (string, error) {
	for segment := range strings.SplitSeq(portPath, "/") {
		next, err := child(node, segment)
		if err != nil {
			return "", fmt.Errorf("path %s: %w", portPath, err)
		}
		node = next
	}
	port, err := strconv.Atoi(node.Value)
	if err != nil {
		return "", fmt.Errorf("path %s: found %q, want a port", portPath, node.Value)
	}
	return Loopback(port), nil
}

// ready returns nil once Envoy says that it is live, accepts connections, and has a healthy host in each cluster.
func (e *Envoy) ready(ctx context.Context, clusters []string) error {
	if _, err := e.Get(ctx, "/ready"); err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", e.Address)
	if err != nil {
		return err
	}
	_ = conn.Close() // it was opened only to see that it can be
	for _, cluster := range clusters {
		healthy, err := e.Stat(ctx, "cluster."+cluster+".membership_healthy")
		if err != nil {
			return err
		}
		if healthy == 0 {
			return fmt.Errorf("cluster %s has no healthy host", cluster)
		}
	}
	return nil
}

// adminBytes bounds an answer of the admin interface; a configuration dump has some ten thousand.
const adminBytes = 16 << 20

// Get returns the body of an admin page, such as "/clusters". An answer other than 200 is an error.
func (e *Envoy) Get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Admin+path, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("lab: envoy admin %s: %w", path, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("lab: envoy admin %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, adminBytes))
	if err != nil {
		return "", fmt.Errorf("lab: envoy admin %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("lab: envoy admin %s: %s: %s", path, resp.Status, body)
	}
	return string(body), nil
}

// Stat returns the value of a counter or gauge by its full name, such as "cluster.extauthz.upstream_rq_total". A name that
// Envoy does not know is an error.
func (e *Envoy) Stat(ctx context.Context, name string) (int64, error) {
	body, err := e.Get(ctx, "/stats?filter=^"+regexp.QuoteMeta(name)+"$")
	if err != nil {
		return 0, err
	}
	found, text, ok := strings.Cut(strings.TrimSpace(body), ": ")
	if !ok || found != name {
		return 0, fmt.Errorf("lab: envoy stat %s: found %q, want one line", name, body)
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("lab: envoy stat %s: %w", name, err)
	}
	return value, nil
}

// AccessLog returns the lines of Envoy's access log so far, decoded from JSON. A line is written some 20 ms after its
// request has ended.
func (e *Envoy) AccessLog() ([]map[string]any, error) {
	text := e.Stdout()
	text = text[:strings.LastIndexByte(text, '\n')+1] // without a line that is still being written
	var entries []map[string]any
	for line := range strings.Lines(text) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			return nil, fmt.Errorf("lab: envoy access log: %w in %q", err, line)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}
