package authz

import (
	"strconv"
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
		got := new(request)
		if !scan(marshal(t, req), got) {
			t.Errorf("%s is not scanned", name)
			continue
		}
		if diff := diffRequests(req, got); diff != "" {
			t.Errorf("%s (-decoded +scanned):\n%s", name, diff)
		}
		if diff := cmp.Diff(req.GetAttributes().String(), got.attributes().String()); diff != "" || got.broken {
			t.Errorf("%s: attributes (-sent +decoded later):\n%s", name, diff)
		}
	}
}

// diffRequests compares what was scanned with what the decoder finds.
func diffRequests(req *authv3.CheckRequest, scanned *request) string {
	want := new(request)
	decoded(req, want)
	return cmp.Diff(want, scanned, cmp.AllowUnexported(request{}, field{}), cmpopts.IgnoreFields(request{}, "raw", "decoded", "room", "usual"),
		cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b field) bool { return a.name < b.name }))
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
		if r := new(request); scan(msg, r) {
			t.Errorf("%s is scanned: %+v", name, r)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(marshal(f, get("/orders")))
	f.Add(marshal(f, full()))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got := new(request)
		if !scan(msg, got) {
			return
		}
		req := new(authv3.CheckRequest)
		if err := proto.Unmarshal(msg, req); err != nil {
			return // in a part that nobody has looked at: whoever does is told, see request.attributes
		}
		if diff := diffRequests(req, got); diff != "" {
			t.Fatalf("(-decoded +scanned):\n%s", diff)
		}
	})
}

// A part that is broken is told to whoever looks at it.
func TestPolicySeesNoBrokenPart(t *testing.T) {
	attributes := marshal(t, get("/orders").GetAttributes())
	const contextExtensions protowire.Number = 10
	attributes = protowire.AppendBytes(protowire.AppendTag(attributes, contextExtensions, protowire.BytesType), []byte{0xff})
	msg := protowire.AppendBytes(protowire.AppendTag(nil, checkRequestAttributes, protowire.BytesType), attributes)
	c := new(check)
	if !scan(msg, &c.request) {
		t.Fatal("the message is not scanned, want only the part broken that the scan does not look at")
	}
	in := new(policy.Input)
	if err := c.complete(in, func(field string) bool { return field == "context" }); err == nil {
		t.Error("no error, want the request refused: the policy would decide without having seen it")
	}
}

// Many headers are left to the decoder, which finds a name among them in less time.
func TestScanLeavesManyHeaders(t *testing.T) {
	for n, want := range map[int]bool{maxScanned: true, maxScanned + 1: false} {
		req := get("/orders")
		for i := len(req.GetAttributes().GetRequest().GetHttp().GetHeaders()); i < n; i++ {
			req.GetAttributes().GetRequest().GetHttp().Headers["x-"+strconv.Itoa(i)] = "1"
		}
		msg, got := marshal(t, req), new(request)
		if scan(msg, got) != want {
			t.Errorf("%d headers: scanned is %t, want %t", n, !want, want)
		}
		if got = new(request); !take(msg, got) || diffRequests(req, got) != "" {
			t.Errorf("%d headers: the request is another:\n%s", n, diffRequests(req, got))
		}
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
		"a denial":            {denied: true, code: 7, message: "no_route", status: 403, body: long, headers: []option{overwrite("a", "1"), overwrite("b", "")}},
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
		headers:     []option{overwrite("a", long), addedCookie(0, "c"), ownCookie(1, "d")},
		remove:      []string{"x", "y"},
		response:    []option{overwrite("z", "1")},
		setQuery:    []policy.Parameter{{Name: "q", Values: []string{"1", ""}}},
		removeQuery: []string{"r"},
		metadata: []fact{
			{field: "absent"},
			{field: "s", value: textValue("text")},
			{field: "empty", value: textValue("")},
			{field: "invalid", value: textValue("\xff")},
			{field: "list", value: listValue([]string{"a", "", long})},
			{field: "no items", value: listValue(nil)},
			{field: "n", value: jsonValue(1.5)},
			{field: "b", value: jsonValue(true)},
			{field: "null", value: jsonValue(nil)},
			{field: "object", value: jsonValue(map[string]any{"k": []any{"v", 1.0}})},
			{field: "unknown", value: jsonValue(struct{}{})},
		},
	}
}
