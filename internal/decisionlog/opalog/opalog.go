// Package opalog hands decisions to OPA's decision log plugin, which sends them to where OPA's configuration says.
package opalog

import (
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/plugins"      //nolint:depguard // this is the one way to OPA's decision logs
	"github.com/open-policy-agent/opa/v1/plugins/logs" //nolint:depguard // as above
	"github.com/open-policy-agent/opa/v1/server"       //nolint:depguard // the plugin takes its Info

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
)

// errNoPlugin: the configuration, or what discovery found, has no decision_logs.
var errNoPlugin = errors.New("opalog: OPA's configuration has no decision_logs")

// To returns a function that gives events to the plugin of a manager. The plugin only buffers them, so it does not wait. What
// the plugin itself loses it counts in its own metrics. The revisions of the bundles that a policy was made of come from
// bundles, which may be nil.
func To(manager *plugins.Manager, bundles func(policyRevision string) map[string]string) func(context.Context, decisionlog.Event) error {
	return func(ctx context.Context, e decisionlog.Event) error {
		plugin := logs.Lookup(manager) // discovery may bring it or change it
		if plugin == nil {
			return errNoPlugin
		}
		info := infoOf(e)
		if bundles != nil && e.Revision != "" {
			info.Bundles = make(map[string]server.BundleInfo)
			for name, revision := range bundles(e.Revision) {
				info.Bundles[name] = server.BundleInfo{Revision: revision}
			}
		}
		return plugin.Log(ctx, info)
	}
}

func infoOf(e decisionlog.Event) *server.Info {
	info := &server.Info{
		DecisionID: e.DecisionID, TraceID: e.TraceID, Path: e.Path, Timestamp: e.Timestamp, Custom: e.Custom,
		Revision: e.Revision, // deprecated in favour of bundles, of which a policy need not be made
	}
	// The plugin knows only what its own masks erased.
	if len(e.Erased) > 0 {
		info.Custom["erased"] = e.Erased
	}
	if len(e.Masked) > 0 {
		info.Custom["masked"] = e.Masked
	}
	if e.Input != nil {
		info.Input = &e.Input
	}
	if e.Result != nil {
		info.Results = &e.Result
	}
	return info
}
