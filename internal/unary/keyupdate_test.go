package unary_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// records encrypts what a client of TLS 1.3 sends (RFC 8446 section 5.2), as crypto/tls sends no KeyUpdate.
type records struct {
	testing.TB
	secret []byte
	sent   uint64 // under this secret
}

// expand is HKDF-Expand-Label (section 7.1).
func (r *records) expand(label string, size int) []byte {
	r.Helper()
	label = "tls13 " + label
	info := append(append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...), 0)
	out, err := hkdf.Expand(sha256.New, r.secret, string(info), size)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r *records) seal(kind byte, content []byte) []byte {
	r.Helper()
	block, err := aes.NewCipher(r.expand("key", 16))
	if err != nil {
		r.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		r.Fatal(err)
	}
	nonce := r.expand("iv", 12)
	number := binary.BigEndian.Uint64(nonce[4:]) ^ r.sent
	binary.BigEndian.PutUint64(nonce[4:], number)
	r.sent++
	content = append(bytes.Clone(content), kind)
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(content)+aead.Overhead()))
	return aead.Seal(head, nonce, content, head)
}

// A client that has been silent for long may begin with new keys, and ask for ours (RFC 8446 section 4.6.3): the answer to that is
// written while the connection is read, whenever the last write was.
func TestKeyUpdateAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, pool := certificate(t)
		s := unary.New(unary.Config{Methods: newBackend().methods(), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
		l := newPipes()
		go func() { _ = s.Serve(l) }()
		raw, keys := l.dial(), new(lines)
		conn := tls.Client(raw, &tls.Config{
			RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"h2"}, KeyLogWriter: keys, MinVersion: tls.VersionTLS13,
		})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Skip("another cipher suite")
		}
		out := &records{TB: t}
		for line := range strings.Lines(keys.String()) {
			if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
				out.secret, _ = hex.DecodeString(f[2])
			}
		}
		p := newPeer(t, sealed{conn, raw, out})
		p.greetBoth()

		time.Sleep(10 * time.Minute)
		keyUpdate := []byte{24, 0, 0, 1, 1} // KeyUpdate, a byte long, update_requested
		go func() {
			_, _ = raw.Write(out.seal(22, keyUpdate))
			out.secret, out.sent = out.expand("traffic upd", sha256.Size), 0
			p.call(1, echo, "a")
		}()
		if got := p.answer(1).text(); got != "a" {
			t.Errorf("got %s, want a", got)
		}
		_ = raw.Close()
		s.Close()
		time.Sleep(time.Hour) // of the bubble's clock: goroutines that send end too
	})
}

// sealed is a client's connection whose writes are sealed by us.
type sealed struct {
	*tls.Conn
	raw net.Conn
	out *records
}

func (s sealed) Write(p []byte) (int, error) {
	_, err := s.raw.Write(s.out.seal(23, p))
	return len(p), err
}
