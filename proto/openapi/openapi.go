// Package openapi holds the OpenAPI document of the REST API, as generated from the protos.
package openapi

import _ "embed" // for the document

// Document is the OpenAPI 2.0 document, JSON.
//
//go:embed shoal.swagger.json
var Document []byte
