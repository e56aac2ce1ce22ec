package config

import (
	"bytes"
	_ "embed" // for the schema
)

// The schema is generated from the types of this package by their tests (-update), as is its copy in docs/.
//
//go:embed extauthz.schema.json
var schema []byte

//go:embed cognitoctl.schema.json
var profileSchema []byte

// ProfileSchema returns a JSON Schema (draft 2020-12) of the configuration file of cognitoctl, as [Schema] is of the
// service's.
func ProfileSchema() []byte { return bytes.Clone(profileSchema) }

// Schema returns a JSON Schema (draft 2020-12) of the file. What it refuses, [Load] refuses too; Load also checks
// what a schema cannot say.
func Schema() []byte { return bytes.Clone(schema) }
