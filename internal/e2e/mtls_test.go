package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cognito-extauthz/extauthz/internal/certtest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// An authority signs certificates for the tests of mutual TLS.
type authority struct{ *certtest.Authority }

// service is the environment of an extauthz that has the certificate of a name, and wants one of this authority's.
func (a authority) service(name string) []string {
	return []string{
		"EXTAUTHZ__LISTEN__TLS__CERT_FILE=" + a.Cert(name),
		"EXTAUTHZ__LISTEN__TLS__KEY_FILE=" + a.Key(name),
		"EXTAUTHZ__LISTEN__TLS__CLIENT_CA_FILE=" + a.Cert("ca"),
	}
}

// client makes Envoy speak TLS with extauthz, as deploy/envoy/envoy.yaml advises: the server's name is pinned. Without a name it
// has no certificate.
func (a authority) client(name, server string) []lab.Edit {
	type object = map[string]any
	// Envoy's health checks offer no protocol of their own accord, and extauthz takes h2 only.
	common := object{"alpn_protocols": []string{"h2"}, "validation_context": object{
		"trusted_ca": object{"filename": a.Cert("ca")},
		"match_typed_subject_alt_names": []object{
			{"san_type": "DNS", "matcher": object{"exact": server}},
		},
	}}
	if name != "" {
		common["tls_certificates"] = []object{{
			"certificate_chain": object{"filename": a.Cert(name)}, "private_key": object{"filename": a.Key(name)},
		}}
	}
	return []lab.Edit{lab.Add(lab.ClustersPath+"/extauthz/transport_socket", object{
		"name": "envoy.transport_sockets.tls",
		"typed_config": object{
			"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
			"sni":   server, "common_tls_context": common,
		},
	})}
}

// Over mutual TLS, Envoy's checks and health checks are answered, and extauthz drains. An Envoy that has no certificate, one of
// another authority, or no TLS at all, gets no answer, and lets nothing pass.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	const server = "extauthz.test"
	ours, theirs := authority{certtest.New(t)}, authority{certtest.New(t)}
	for name, dns := range map[string]string{"extauthz": server, "envoy": "envoy.test"} {
		ours.Issue(t, name, dns)
		theirs.Issue(t, name, dns)
	}
	x := newService(t, "own.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()}, ours.service("extauthz")...)
	g := newGateway(t, x, patience(), ours.client("envoy", server)) // when it is there, its health checks are answered
	token := bearer(t, reportsID)
	for range 20 {
		if diff := differ(reaches("/case/yes"), g.get(t, "/case/yes", token).outcome()); diff != nil {
			t.Fatal(diff)
		}
	}
	if got := g.get(t, "/case/yes").outcome().Status; got != 401 {
		t.Errorf("without a token: %d, want 401", got)
	}
	if n, err := g.Stat(t.Context(), "cluster.extauthz.ssl.handshake"); err != nil || n == 0 {
		t.Errorf("Envoy counts %d handshakes, %v, want some", n, err)
	}

	// Envoy pins the name of the service, and the service takes only what its authority has signed.
	stranger := theirs.client("envoy", server)
	wrong := lab.Set(lab.ClustersPath+"/extauthz/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename",
		ours.Cert("ca"))
	for name, edits := range map[string][]lab.Edit{
		"no certificate":        ours.client("", server),
		"of another authority":  append(stranger, wrong),
		"no TLS":                nil,
		"another server's name": ours.client("envoy", "other.test"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, upstream := unhealthyGateway(t, x, edits)
			if a := e.get(t, "/case/yes", token); a.outcome() != (outcome{Status: 503}) {
				t.Errorf("got %+v, want 503", a.outcome())
			}
			eventually(t, func() error {
				if n, err := e.Stat(t.Context(), "cluster.extauthz.health_check.failure"); err != nil || n == 0 {
					return fmt.Errorf("%d failed health checks, %w, want some", n, err)
				}
				return nil
			})
			if n := upstream.Requests(); n != 0 {
				t.Errorf("%d requests reached the upstream, want none", n)
			}
		})
	}
	t.Run("a client that is no Envoy", func(t *testing.T) {
		t.Parallel()
		for name, certs := range map[string][]tls.Certificate{"none": nil, "ours": {ours.Pair(t, "envoy")}} {
			err := check(t, x, &tls.Config{RootCAs: ours.Pool(), ServerName: server, Certificates: certs})
			if got, want := err == nil, certs != nil; got != want {
				t.Errorf("certificate %s: %v, want an answer: %v", name, err, want)
			}
		}
	})
}

// check sends an empty check.
func check(t *testing.T, x *service, c *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient(lab.Loopback(x.grpcPort), grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	_, err = authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{})
	return err
}

// unhealthyGateway starts an Envoy that finds its extauthz not to be healthy.
func unhealthyGateway(t *testing.T, x *service, edits []lab.Edit) (*gateway, *lab.Echo) {
	t.Helper()
	ports, err := lab.FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{}
	if g.echo, err = lab.StartEcho(lab.Loopback(ports[2])); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	g.Envoy, err = lab.StartEnvoy(ctx, lab.EnvoyConfig{
		Ports: lab.EnvoyPorts{Listener: ports[0], Admin: ports[1], Extauthz: x.grpcPort, Upstream: ports[2]},
		Edits: edits, Dir: t.TempDir(),
	})
	if err != nil {
		_ = g.echo.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.end(); err != nil {
			t.Error(err)
		}
	})
	return g, g.echo
}
