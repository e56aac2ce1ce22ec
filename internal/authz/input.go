package authz

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// asked is the document that a policy sees (docs/policy-input.md), with what it points to.
type asked struct {
	input policy.Input
	route policy.Route
	token policy.Token
}

// input returns what is known of the check as the policy's input.
func (s *Service) input(c *check) *policy.Input {
	in := &c.asked.input
	in.SourcePrincipal = c.request.principal
	in.Asked = func(p policy.Policy) { c.policy = p }
	if s.OPAEnvoy {
		in.Complete = c.completeOPAEnvoy
		return in
	}
	in.Complete = c.complete
	c.describe(in)
	return in
}

// complete fills in what costs something to make, if the policy may read it, and takes away what costs something to have.
func (c *check) complete(in *policy.Input, reads func(field string) bool) error {
	if in.Token != nil && !reads("token.claims") {
		in.Token.Claims = nil
	}
	if reads("attributes") {
		in.Attributes = attributes(c.request.attributes())
	}
	if reads("context") {
		c.describeContext(in)
	}
	return c.request.complete(in, reads)
}

// describe fills in what OPA-Envoy does not have.
func (c *check) describe(in *policy.Input) {
	in.Canonical = policy.Canonical{Host: c.request.host, Path: c.request.path.Canonical}
	if m := c.match; m != nil {
		rule := m.Rule
		in.Route = &c.asked.route
		*in.Route = policy.Route{
			Name: rule.Name, Hosts: rule.Hosts, Methods: rule.Methods, Path: rule.Path, Params: m.Params,
			Pools: rule.Pools, Scopes: policy.Scopes{All: rule.ScopesAll, Any: rule.ScopesAny},
			Clients: rule.Clients, AnyClient: rule.AnyClient, Public: rule.Public,
		}
	}
	if t := c.claims; t != nil {
		in.Token = &c.asked.token
		*in.Token = policy.Token{
			ClientID: t.ClientID, ClientName: c.client, Pool: t.Pool, Issuer: t.Issuer, Subject: t.Subject,
			TokenID: t.TokenID, TokenUse: string(t.TokenUse), Scopes: t.Scopes, Claims: t.Map(),
		}
	}
}

func (c *check) describeContext(in *policy.Input) {
	ac := c.request.attributes()
	in.Context = policy.Context{
		Extensions:    ac.GetContextExtensions(),
		Metadata:      filterMetadata(ac.GetMetadataContext().GetFilterMetadata()),
		RouteMetadata: filterMetadata(ac.GetRouteMetadataContext().GetFilterMetadata()),
	}
}

func filterMetadata(m map[string]*structpb.Struct) map[string]any {
	out := make(map[string]any, len(m))
	for name, fields := range m {
		out[name] = fields.AsMap()
	}
	return out
}

// attributes writes an AttributeContext in the form that OPA-Envoy policies know: names in lowerCamelCase, unset
// fields absent, int64 and enums as numbers, bytes in base64, an Any not unpacked. The Authorization header is left
// out, so that no policy can log or forward the token.
func attributes(ac *authv3.AttributeContext) map[string]any {
	if ac == nil {
		return nil
	}
	doc, _ := message(ac.ProtoReflect()).(map[string]any)
	request, _ := doc["request"].(map[string]any)
	http, _ := request["http"].(map[string]any)
	withoutAuthorization(http)
	return doc
}

func withoutAuthorization(http map[string]any) {
	headers, _ := http["headers"].(map[string]any)
	for name := range headers {
		if strings.EqualFold(name, "authorization") {
			delete(headers, name)
		}
	}
	raw, _ := http["headerMap"].(map[string]any)
	list, _ := raw["headers"].([]any)
	kept := make([]any, 0, len(list))
	for _, item := range list {
		h, _ := item.(map[string]any)
		if name, _ := h["key"].(string); !strings.EqualFold(name, "authorization") {
			kept = append(kept, item)
		}
	}
	if len(kept) < len(list) {
		raw["headers"] = kept
	}
}

// message writes a protobuf message as a JSON document.
func message(m protoreflect.Message) any {
	if s, ok := m.Interface().(*structpb.Struct); ok {
		return s.AsMap()
	}
	doc := make(map[string]any)
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			doc[field.JSONName()] = mapping(field.MapValue(), v.Map())
		case field.IsList():
			list := v.List()
			items := make([]any, list.Len())
			for i := range items {
				items[i] = scalar(field, list.Get(i))
			}
			doc[field.JSONName()] = items
		default:
			doc[field.JSONName()] = scalar(field, v)
		}
		return true
	})
	return doc
}

func mapping(value protoreflect.FieldDescriptor, m protoreflect.Map) any {
	doc := make(map[string]any, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		doc[k.String()] = scalar(value, v)
		return true
	})
	return doc
}

func scalar(field protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return message(v.Message())
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	case protoreflect.EnumKind:
		return json.Number(strconv.Itoa(int(v.Enum())))
	case protoreflect.BoolKind:
		return v.Bool()
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return v.Float()
	case protoreflect.StringKind:
		return v.String()
	}
	return json.Number(v.String()) // the integers
}
