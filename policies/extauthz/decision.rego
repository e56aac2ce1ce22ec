# What decides if you have no policy of your own. With one (policy.dir), this file is left out and base.rego stays.
package extauthz

decision := data.extauthz.base.decision
