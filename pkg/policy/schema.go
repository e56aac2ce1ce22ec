package policy

import (
	"reflect"
	"strings"
)

// inputSchema is the JSON Schema of the input document, by which the compiler checks policies: without it, a misspelt
// input.token.client_ids is undefined for ever, and "not input.token.client_ids" always true. It is made of the types
// themselves. The compiler reads "type", "properties" and "items" of it; an object without properties is an open one.
func inputSchema() map[string]any {
	s := schemaOf(reflect.TypeFor[Input]())
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	s["properties"].(map[string]any)["attributes"] = attributesSchema()
	return s
}

func schemaOf(t reflect.Type) map[string]any {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Struct:
		properties := make(map[string]any, t.NumField())
		for f := range t.Fields() {
			if name := jsonName(f); name != "-" {
				properties[name] = schemaOf(f.Type)
			}
		}
		return object(properties)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	default: // any
		return map[string]any{}
	}
}

// attributesSchema closes the levels of envoy.service.auth.v3.AttributeContext down to the fields of an HTTP request,
// by its fields in Envoy 1.40. What is deeper (addresses, metadata) stays open.
func attributesSchema() map[string]any {
	peer := object(open("address", "service", "labels", "principal", "certificate"))
	http := object(open("id", "method", "headers", "headerMap", "path", "host", "scheme", "query", "fragment",
		"size", "protocol", "body", "rawBody"))
	attributes := open("contextExtensions", "metadataContext", "routeMetadataContext", "tlsSession")
	attributes["source"] = peer
	attributes["destination"] = peer
	attributes["request"] = object(map[string]any{"http": http, "time": map[string]any{}})
	return object(attributes)
}

func object(properties map[string]any) map[string]any {
	return map[string]any{"type": "object", "properties": properties}
}

// open returns properties whose values may be anything.
func open(names ...string) map[string]any {
	properties := make(map[string]any, len(names))
	for _, name := range names {
		properties[name] = map[string]any{}
	}
	return properties
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
