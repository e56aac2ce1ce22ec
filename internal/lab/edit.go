package lab

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Paths of often changed parts of deploy/envoy/envoy.yaml, to build longer ones from.
const (
	ListenerPath = "static_resources/listeners/ingress"                                // the listener
	HCMPath      = ListenerPath + "/filter_chains/0/filters/0/typed_config"            // its HTTP connection manager
	ExtAuthzPath = HCMPath + "/http_filters/envoy.filters.http.ext_authz/typed_config" // the ext_authz filter
	ClustersPath = "static_resources/clusters"                                         // below it: extauthz, upstream
)

// An Edit changes one place of a YAML document. A place is a path of mapping keys and sequence elements, joined by
// slashes; an element is named by its index or by the value of its "name" key. An edit that has nothing to change is an
// error, so that a renamed key cannot turn a test into one of something else.
type Edit struct {
	path  string
	apply func(parent *yaml.Node, key string) error
}

// Set replaces the value at path, which must be there.
func Set(path string, value any) Edit {
	return Edit{path, func(parent *yaml.Node, key string) error {
		old, err := child(parent, key)
		if err != nil {
			return err
		}
		return encode(old, value)
	}}
}

// Add puts a value where there is none: a new key of a mapping, or a new last element of a sequence when the path ends
// in "+".
func Add(path string, value any) Edit {
	return Edit{path, func(parent *yaml.Node, key string) error {
		var added yaml.Node
		if err := encode(&added, value); err != nil {
			return err
		}
		switch {
		case parent.Kind == yaml.SequenceNode && key == "+":
			parent.Content = append(parent.Content, &added)
		case parent.Kind == yaml.MappingNode:
			if _, err := child(parent, key); err == nil {
				return fmt.Errorf("%q is there already, want none", key)
			}
			parent.Content = append(parent.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, &added)
		default:
			return errors.New(`found neither a mapping nor, for "+", a sequence`)
		}
		return nil
	}}
}

// Remove takes the value at path away, which must be there.
func Remove(path string) Edit {
	return Edit{path, func(parent *yaml.Node, key string) error {
		old, err := child(parent, key)
		if err != nil {
			return err
		}
		i := slices.Index(parent.Content, old)
		if parent.Kind == yaml.MappingNode {
			parent.Content = slices.Delete(parent.Content, i-1, i+1) // key and value
			return nil
		}
		parent.Content = slices.Delete(parent.Content, i, i+1)
		return nil
	}}
}

// editYAML returns the document with the edits made in their order.
func editYAML(document []byte, edits []Edit) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	if len(root.Content) != 1 {
		return nil, errors.New("found an empty document, want a mapping")
	}
	for _, e := range edits {
		segments := strings.Split(e.path, "/")
		node, last := root.Content[0], len(segments)-1
		for _, segment := range segments[:last] {
			next, err := child(node, segment)
			if err != nil {
				return nil, fmt.Errorf("path %s: %w", e.path, err)
			}
			node = next
		}
		if err := e.apply(node, segments[last]); err != nil {
			return nil, fmt.Errorf("path %s: %w", e.path, err)
		}
	}
	return yaml.Marshal(&root)
}

// child returns the value under a mapping's key, or a sequence's element by index or name.
func child(parent *yaml.Node, key string) (*yaml.Node, error) {
	switch parent.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(parent.Content); i += 2 {
			if parent.Content[i].Value == key {
				return parent.Content[i+1], nil
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(parent.Content) {
			return parent.Content[i], nil
		}
		for _, element := range parent.Content {
			if element.Kind != yaml.MappingNode {
				continue
			}
			if name, err := child(element, "name"); err == nil && name.Value == key {
				return element, nil
			}
		}
	}
	return nil, fmt.Errorf("found no %q on line %d", key, parent.Line)
}

// encode replaces node by value, as yaml.Marshal would write it.
func encode(node *yaml.Node, value any) error {
	var encoded yaml.Node
	if err := encoded.Encode(value); err != nil {
		return err
	}
	*node = encoded
	return nil
}
