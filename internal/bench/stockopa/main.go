// Stockopa is an ext_authz server that does the whole job in Rego, as users of the OPA-Envoy plugin write it: the token is
// verified by io.jwt.decode_verify in the policy. From a request to OPA's input and from OPA's result to an answer it goes
// the plugin's way: protojson, a Go map, a prepared query.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/ast"           //nolint:depguard // this program is OPA, for comparison
	"github.com/open-policy-agent/opa/v1/rego"          //nolint:depguard // as above
	"github.com/open-policy-agent/opa/v1/storage/inmem" //nolint:depguard // as above
	"github.com/open-policy-agent/opa/v1/util"          //nolint:depguard // as above
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
)

//go:embed policy.rego
var policy string

func main() {
	listen := flag.String("listen", "127.0.0.1:9191", "`host:port` to serve on")
	data := flag.String("data", "", "JSON `file` that becomes data: jwks (text), issuer, clients")
	flag.Parse()
	if err := run(*listen, *data); err != nil {
		fmt.Fprintln(os.Stderr, "stockopa:", err)
		os.Exit(1)
	}
}

func run(listen, data string) error {
	s, err := newServer(context.Background(), data)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, s)
	return g.Serve(listener)
}

type server struct {
	authv3.UnimplementedAuthorizationServer
	query rego.PreparedEvalQuery
}

func newServer(ctx context.Context, file string) (*server, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var data map[string]any
	if err := json.Unmarshal(text, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	query, err := rego.New(
		rego.Query("data.envoy.authz.decision"),
		rego.Module("policy.rego", policy),
		rego.Store(inmem.NewFromObject(data)),
	).PrepareForEval(ctx)
	return &server{query: query}, err
}

func (s *server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	in, err := input(req)
	if err != nil {
		return nil, err
	}
	results, err := s.query.Eval(ctx, rego.EvalParsedInput(in))
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, errors.New("the policy is undefined, want one decision")
	}
	decision, ok := results[0].Expressions[0].Value.(map[string]any)
	if !ok {
		return nil, errors.New("the decision is no object")
	}
	return answer(decision)
}

// input is what the plugin makes of a request.
func input(req *authv3.CheckRequest) (ast.Value, error) {
	text, err := protojson.Marshal(req)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := util.UnmarshalJSON(text, &doc); err != nil {
		return nil, err
	}
	target, err := url.Parse(req.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	segments := strings.Split(strings.TrimLeft(target.Path, "/"), "/")
	path := make([]any, len(segments))
	for i, s := range segments {
		path[i] = s
	}
	query := make(map[string]any)
	for name, values := range target.Query() {
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		query[name] = list
	}
	doc["parsed_path"], doc["parsed_query"] = path, query
	return ast.InterfaceToValue(doc)
}

func answer(decision map[string]any) (*authv3.CheckResponse, error) {
	var headers []*corev3.HeaderValueOption
	given, _ := decision["headers"].(map[string]any)
	for name, value := range given {
		text, _ := value.(string)
		headers = append(headers, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: text}})
	}
	if decision["allowed"] == true {
		return &authv3.CheckResponse{
			Status:       &status.Status{Code: int32(code.Code_OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: headers}},
		}, nil
	}
	number, _ := decision["http_status"].(json.Number)
	http, err := number.Int64()
	if err != nil {
		return nil, fmt.Errorf("http_status: %w", err)
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(http)}, Headers: headers,
		}},
	}, nil
}
