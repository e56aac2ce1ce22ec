package authz

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	msg, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// full is a CheckRequest with all that Envoy may send beside what is scanned.
func full() *authv3.CheckRequest {
	req := get("/orders?page=2", withHeader("content-type", "application/grpc"), withHeader("x-empty", ""))
	ac := req.GetAttributes()
	ac.Source = &authv3.AttributeContext_Peer{Principal: "spiffe://cluster.local/ns/shop/sa/web", Labels: map[string]string{"a": "b"}}
	ac.Destination = &authv3.AttributeContext_Peer{Principal: "spiffe://cluster.local/ns/shop/sa/orders"}
	ac.Request.Time = timestamppb.New(timestamppb.Now().AsTime())
	ac.ContextExtensions = map[string]string{"tier": "gold"}
	ac.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"f": {Fields: map[string]*structpb.Value{"n": structpb.NewNumberValue(1)}}}}
	http := ac.GetRequest().GetHttp()
	http.Body, http.Size, http.Id, http.Query, http.Fragment = "text", 4, "1", "", ""
	return req
}

// What is scanned is what the decoder finds.
func TestScanFindsWhatTheDecoderFinds(t *testing.T) {
	for name, req := range map[string]*authv3.CheckRequest{
		"a usual one": get("/orders"),
		"a full one":  full(),
		"no headers":  get("/", func(h *authv3.AttributeContext_HttpRequest) { h.Headers = nil }),
		"an empty path, host and method": get("", func(h *authv3.AttributeContext_HttpRequest) {
			h.Method, h.Host = "", ""
		}),
		"a body as bytes": get("/", func(h *authv3.AttributeContext_HttpRequest) { h.RawBody = []byte{0xff, 0} }),
	} {
		got, ok := scan(marshal(t, req))
		if !ok {
			t.Errorf("%s is not scanned", name)
			continue
		}
		if diff := cmp.Diff(decoded(req), got, cmp.AllowUnexported(request{}), cmpopts.IgnoreFields(request{}, "raw", "decoded")); diff != "" {
			t.Errorf("%s (-decoded +scanned):\n%s", name, diff)
		}
		if diff := cmp.Diff(req.GetAttributes().String(), got.attributes().String()); diff != "" || got.broken {
			t.Errorf("%s: attributes (-sent +decoded later):\n%s", name, diff)
		}
	}
}

// What is odd is left to the decoder.
func TestScanLeavesOddMessages(t *testing.T) {
	usual := marshal(t, get("/orders"))
	http := func(fields ...byte) []byte {
		inHTTP := protowire.AppendBytes([]byte{0x12}, fields)
		inRequest := protowire.AppendBytes([]byte{0x22}, inHTTP)
		return protowire.AppendBytes([]byte{0x0a}, inRequest)
	}
	for name, msg := range map[string][]byte{
		"nothing":                 nil,
		"junk":                    []byte("\xff\xff"),
		"a cut message":           usual[:len(usual)-1],
		"two attributes":          append(append([]byte{}, usual...), usual...),
		"no http":                 marshal(t, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}),
		"two paths":               http(0x22, 1, '/', 0x22, 1, '/'),
		"a path that is no UTF-8": http(0x22, 1, 0xff),
		"a name twice":            http(0x1a, 3, 0x0a, 1, 'a', 0x1a, 3, 0x0a, 1, 'a'),
		"a name in upper case":    marshal(t, get("/", withHeader("X-A", "1"))),
		"a value not UTF-8":       http(0x1a, 6, 0x0a, 1, 'a', 0x12, 1, 0xff),
		"raw headers": marshal(t, get("/", func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "a", RawValue: []byte("b")}}}
		})),
		"a group": http(0x0b, 0x0c),
	} {
		if r, ok := scan(msg); ok {
			t.Errorf("%s is scanned: %+v", name, r)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(marshal(f, get("/orders")))
	f.Add(marshal(f, full()))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, ok := scan(msg)
		if !ok {
			return
		}
		req := new(authv3.CheckRequest)
		if err := proto.Unmarshal(msg, req); err != nil {
			return // in a part that nobody has looked at: whoever does is told, see request.attributes
		}
		if diff := cmp.Diff(decoded(req), got, cmp.AllowUnexported(request{}), cmpopts.IgnoreFields(request{}, "raw", "decoded"), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-decoded +scanned):\n%s", diff)
		}
	})
}

// A part that is broken is told to whoever looks at it.
func TestPolicySeesNoBrokenPart(t *testing.T) {
	msg := marshal(t, get("/orders"))
	broken := append([]byte{}, msg[protowire.SizeBytes(0)+1:]...) // the attributes alone
	broken = append(broken, 0x52, 1, 0xff)                        // and context_extensions that are none
	msg = protowire.AppendBytes([]byte{0x0a}, broken)
	r, ok := scan(msg)
	if !ok {
		t.Skip("the scan has left it to the decoder, which is as good")
	}
	in := new(policy.Input)
	if err := (&check{request: r}).complete(in, func(field string) bool { return field == "context" }); err == nil {
		t.Error("no error, want the request refused: the policy would decide without having seen it")
	}
}

// The field numbers are those of the API.
func TestFieldNumbers(t *testing.T) {
	of := func(m proto.Message, name protoreflect.Name) protowire.Number {
		return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
	}
	for _, test := range []struct {
		got, want protowire.Number
	}{
		{checkRequestAttributes, of(&authv3.CheckRequest{}, "attributes")},
		{attributesSource, of(&authv3.AttributeContext{}, "source")},
		{attributesRequest, of(&authv3.AttributeContext{}, "request")},
		{peerPrincipal, of(&authv3.AttributeContext_Peer{}, "principal")},
		{requestHTTP, of(&authv3.AttributeContext_Request{}, "http")},
		{httpMethod, of(&authv3.AttributeContext_HttpRequest{}, "method")},
		{httpHeaders, of(&authv3.AttributeContext_HttpRequest{}, "headers")},
		{httpPath, of(&authv3.AttributeContext_HttpRequest{}, "path")},
		{httpHost, of(&authv3.AttributeContext_HttpRequest{}, "host")},
		{httpBody, of(&authv3.AttributeContext_HttpRequest{}, "body")},
		{httpRawBody, of(&authv3.AttributeContext_HttpRequest{}, "raw_body")},
		{httpHeaderMap, of(&authv3.AttributeContext_HttpRequest{}, "header_map")},
	} {
		if test.got != test.want {
			t.Errorf("field number %d, want %d", test.got, test.want)
		}
	}
}

// What is written as bytes is what is written as a message, whatever is in it.
func TestRepliesAreWrittenAlike(t *testing.T) {
	long := string(make([]byte, 300))
	for name, r := range map[string]*reply{
		"an empty one":        {},
		"an empty denial":     {denied: true},
		"a denial":            {denied: true, code: 7, message: "no_route", status: 403, body: long, headers: []option{header("a", "1"), header("b", "")}},
		"one with everything": everything(long),
	} {
		got := new(authv3.CheckResponse)
		if err := proto.Unmarshal(r.appendTo([]byte{}), got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := r.proto(); !proto.Equal(want, got) {
			t.Errorf("%s: as a message\n%v\nand as bytes\n%v", name, want, got)
		}
	}
}

func everything(long string) *reply {
	return &reply{
		headers:     []option{header("a", long), addedCookie(0, "c"), ownCookie(1, "d")},
		remove:      []string{"x", "y"},
		response:    []option{header("z", "1")},
		setQuery:    []policy.Parameter{{Name: "q", Values: []string{"1", ""}}},
		removeQuery: []string{"r"},
		metadata: []fact{
			{"s", "text"},
			{"empty", ""},
			{"invalid", "\xff"},
			{"list", []string{"a", "", long}},
			{"no items", []string{}},
			{"n", 1.5},
			{"b", true},
			{"null", nil},
			{"object", map[string]any{"k": []any{"v", 1.0}}},
			{"unknown", struct{}{}},
		},
	}
}
