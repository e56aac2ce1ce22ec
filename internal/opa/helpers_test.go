package opa

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/status"
)

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// opabundleModule parses a module for the signer, which wants one that can be read. What cannot is signed as it is.
func opabundleModule(tb testing.TB, m opabundle.ModuleFile) *ast.Module {
	tb.Helper()
	parsed, err := ast.ParseModule(m.Path, string(m.Raw))
	if err != nil {
		return nil
	}
	return parsed
}

func sendStatus(ctx context.Context, m *plugins.Manager) error {
	p := status.Lookup(m)
	if p == nil {
		return errors.New("no status plugin")
	}
	return p.Trigger(ctx)
}

// tampered returns a bundle with another policy under the same signature.
func tampered(tb testing.TB, archive []byte) []byte {
	tb.Helper()
	in, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		tb.Fatal(err)
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	to := tar.NewWriter(zip)
	for from := tar.NewReader(in); ; {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		text, err := io.ReadAll(from)
		if err != nil {
			tb.Fatal(err)
		}
		text = bytes.Replace(text, []byte(`"allowed": false`), []byte(`"allowed": true`), 1)
		header.Size = int64(len(text))
		if err := errors.Join(to.WriteHeader(header), second(to.Write(text))); err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(to.Close(), zip.Close()); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func second(_ int, err error) error { return err }
