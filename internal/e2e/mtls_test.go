package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// An authority signs certificates for the tests of mutual TLS, and keeps them in a directory.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", "")
	return a
}

// issue writes name.crt and name.key. The first certificate is the authority's own.
func (a *authority) issue(t *testing.T, name, dns string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{dns},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage, template.DNSNames = true, true, nil, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(a.file(name, ending), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name, ending string) string { return filepath.Join(a.dir, name+"."+ending) }

// service is the environment of an extauthz that has the certificate of a name, and wants one of this authority's.
func (a *authority) service(name string) []string {
	return []string{
		"EXTAUTHZ__LISTEN__TLS__CERT_FILE=" + a.file(name, "crt"),
		"EXTAUTHZ__LISTEN__TLS__KEY_FILE=" + a.file(name, "key"),
		"EXTAUTHZ__LISTEN__TLS__CLIENT_CA_FILE=" + a.file("ca", "crt"),
	}
}

// client makes Envoy speak TLS with extauthz, as deploy/envoy/envoy.yaml advises: the server's name is pinned. Without a name it
// has no certificate.
func (a *authority) client(name, server string) []lab.Edit {
	type object = map[string]any
	// Envoy's health checks offer no protocol of their own accord, and extauthz takes h2 only.
	common := object{"alpn_protocols": []string{"h2"}, "validation_context": object{
		"trusted_ca": object{"filename": a.file("ca", "crt")},
		"match_typed_subject_alt_names": []object{
			{"san_type": "DNS", "matcher": object{"exact": server}},
		},
	}}
	if name != "" {
		common["tls_certificates"] = []object{{
			"certificate_chain": object{"filename": a.file(name, "crt")}, "private_key": object{"filename": a.file(name, "key")},
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
	ours, theirs := newAuthority(t), newAuthority(t)
	for name, dns := range map[string]string{"extauthz": server, "envoy": "envoy.test"} {
		ours.issue(t, name, dns)
		theirs.issue(t, name, dns)
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
		ours.file("ca", "crt"))
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
		roots := x509.NewCertPool()
		roots.AddCert(ours.cert)
		pair, err := tls.LoadX509KeyPair(ours.file("envoy", "crt"), ours.file("envoy", "key"))
		if err != nil {
			t.Fatal(err)
		}
		for name, certs := range map[string][]tls.Certificate{"none": nil, "ours": {pair}} {
			err := check(t, x, &tls.Config{RootCAs: roots, ServerName: server, Certificates: certs})
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
