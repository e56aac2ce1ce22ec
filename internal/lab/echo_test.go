package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func startEcho(t *testing.T) *lab.Echo {
	t.Helper()
	e, err := lab.StartEcho("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestEchoShowsAnHTTP1RequestAsItArrived(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	conn, err := net.Dial("tcp", e.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PUT //a/../b%2Fc?q=1 HTTP/1.1\r\nHost: Api.Example.com:80\r\nX-A: 2\r\nx_a: u\r\nX-a: 1\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: T\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nT: end\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := lab.Echoed{
		Method:    "PUT",
		Path:      "//a/../b%2Fc?q=1",
		Host:      "Api.Example.com:80",
		Proto:     "HTTP/1.1",
		Headers:   map[string][]string{"x-a": {"2", "1"}, "x_a": {"u"}, "connection": {"close"}},
		BodyBytes: 3,
		Trailers:  map[string][]string{"t": {"end"}},
	}
	if diff := cmp.Diff(want, decodeEcho(t, resp.Body)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := e.Requests(); n != 1 {
		t.Errorf("Requests() = %d, want 1", n)
	}
}

func TestEchoSpeaksHTTP2WithoutTLS(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	client := h2cClient(t)
	resp, err := client.Post("http://"+e.Address+"/x", "text/plain", strings.NewReader("four"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := decodeEcho(t, resp.Body)
	if got.Proto != "HTTP/2.0" || got.BodyBytes != 4 {
		t.Errorf("got proto %s and %d bytes, want HTTP/2.0 and 4", got.Proto, got.BodyBytes)
	}
}

func TestEchoAnswersGRPC(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	got := callGRPC(t, e.Address, "Bearer x")
	if got.Path != "/shop.v1.Orders/Get" || got.Headers["authorization"][0] != "Bearer x" {
		t.Errorf("got %+v, want the method's path and the metadata", got)
	}
}

func TestEchoListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	if e, err := lab.StartEcho("0.0.0.0:0"); err == nil {
		e.Close()
		t.Error("StartEcho listens on all interfaces, want an error")
	}
}

// callGRPC calls a unary method that exists nowhere but in the echo upstream.
func callGRPC(t *testing.T, address, authorization string) lab.Echoed {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", authorization)
	var answer wrapperspb.StringValue
	if err := conn.Invoke(ctx, "/shop.v1.Orders/Get", &emptypb.Empty{}, &answer); err != nil {
		t.Fatal(err)
	}
	return decodeEcho(t, strings.NewReader(answer.GetValue()))
}

func h2cClient(t *testing.T) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func decodeEcho(t *testing.T, body io.Reader) lab.Echoed {
	t.Helper()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	var got lab.Echoed
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return got
}
