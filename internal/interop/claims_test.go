package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// claimTypes changes each claim of a token to each type that it has not.
func (c *corpus) claimTypes(b base) {
	for _, m := range b.claims {
		without := b
		without.claims = b.claims.without(m.name)
		c.add(b, m.name+"/missing", c.sign(without))
		values := []member{
			{"null", "null"},
			{"true", "true"},
			{"false", "false"},
			{"empty", `""`},
			{"list-of-it", "[" + m.value + "]"},
			{"empty-list", "[]"},
			{"object", `{"a":` + m.value + "}"},
			{"space", `" "`},
			{"zero", "0"},
		}
		if strings.HasPrefix(m.value, `"`) {
			values = append(values,
				member{"number", "12345"},
				member{"with-space-before", `" ` + m.value[1:]},
				member{"with-space-after", m.value[:len(m.value)-1] + ` "`},
				member{"with-nul", m.value[:len(m.value)-1] + `\u0000"`},
				member{"escaped", escaped(m.value)},
			)
		} else {
			values = append(values, member{"string", `"` + m.value + `"`}, member{"with-fraction", m.value + ".0"})
		}
		for _, v := range values {
			c.claim(b, m.name+"/"+v.name, m.name, v.value)
		}
	}
}

// escaped writes every character of a JSON string of ASCII as an escape.
func escaped(quoted string) string {
	var text string
	_ = json.Unmarshal([]byte(quoted), &text) // it was made here
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return `"` + b.String() + `"`
}

func (c *corpus) issuers(b base) {
	for _, v := range []member{
		{"other-pool", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other6789"},
		{"other-region", "https://cognito-idp.eu-west-2.amazonaws.com/eu-west-1_Demo12345"},
		{"other-partition", "https://cognito-idp.eu-west-1.amazonaws.com.cn/eu-west-1_Demo12345"},
		{"updated", "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Demo12345"},
		{"slash", issuer + "/"},
		{"two-slashes", "https://cognito-idp.eu-west-1.amazonaws.com//eu-west-1_Demo12345"},
		{"query", issuer + "?a=b"},
		{"fragment", issuer + "#a"},
		{"longer", issuer + "6"},
		{"shorter", issuer[:len(issuer)-1]},
		{"upper-host", strings.Replace(issuer, "cognito-idp", "COGNITO-IDP", 1)},
		{"upper-pool", strings.Replace(issuer, "Demo", "DEMO", 1)},
		{"http", strings.Replace(issuer, "https", "http", 1)},
		{"no-scheme", strings.TrimPrefix(issuer, "https://")},
		{"port", strings.Replace(issuer, ".com/", ".com:443/", 1)},
		{"userinfo", strings.Replace(issuer, "//", "//cognito@", 1)},
		{"pool-only", poolID},
		{"evil-prefix", "https://evil.example/?" + issuer},
		{"percent", strings.Replace(issuer, "_", "%5F", 1)},
		{"zero-width", issuer + "\u200b"},
		{"prototype", "__proto__"},
		{"constructor", "constructor"},
	} {
		c.claim(b, "issuer/"+v.name, "iss", quoted(v.value))
	}
	c.claim(b, "issuer/list-of-two", "iss", "["+quoted(issuer)+`,"https://evil.example"]`)
}

func (c *corpus) clients(b base) {
	name := "client_id"
	if b.tokenUse == "id" {
		name = "aud"
	}
	for _, v := range []member{
		{"other", "2reports0demo0client000000"},
		{"upper", strings.ToUpper(client)},
		{"longer", client + "0"},
		{"shorter", client[:len(client)-1]},
		{"wide-digit", strings.Replace(client, "1", "\uff11", 1)},
		{"prototype", "__proto__"},
		{"length", "length"},
	} {
		c.claim(b, "client/"+v.name, name, quoted(v.value))
	}
	c.claim(b, "client/list-with-other", name, "["+quoted(client)+`,"other"]`)
	b.claims = b.claims.set("azp", quoted("2reports0demo0client000000"))
	c.add(b, "client/azp-other", c.sign(b))
	b.claims = b.claims.without("azp").without(name).set("cid", quoted(client))
	c.add(b, "client/only-as-cid", c.sign(b))
	b.claims = b.claims.without("cid").set("azp", quoted(client))
	c.add(b, "client/only-as-azp", c.sign(b))
	other := "aud"
	if b.tokenUse == "id" {
		other = "client_id"
	}
	b.claims = b.claims.without("azp").set(other, quoted(client))
	c.add(b, "client/only-as-"+other, c.sign(b))
	b.claims = b.claims.set(name, quoted("2reports0demo0client000000"))
	c.add(b, "client/other-but-"+other, c.sign(b))
}

func (c *corpus) tokenUses(b base) {
	swapped := map[string]string{"access": "id", "id": "access"}[b.tokenUse]
	c.claim(b, "token-use/swapped", "token_use", quoted(swapped))
	for _, v := range []member{
		{"upper", strings.ToUpper(b.tokenUse)},
		{"refresh", "refresh"},
		{"both", "access id"},
		{"access_token", "access_token"},
		{"prototype", "__proto__"},
	} {
		c.claim(b, "token-use/"+v.name, "token_use", quoted(v.value))
	}
	b.claims = b.claims.set("aud", quoted(client)).set("client_id", quoted(client)).set("token_use", quoted(swapped))
	c.add(b, "token-use/swapped-with-both-clients", c.sign(b))
}

// times moves the times of a token, by five minutes at least, so that no machine is too slow for a case.
func (c *corpus) times(b base) {
	at := func(d time.Duration) string { return fmt.Sprint(c.now.Add(d).Unix()) }
	past := []member{
		{"5m-ago", at(-5 * time.Minute)},
		{"hour-ago", at(-time.Hour)},
		{"year-ago", at(-365 * 24 * time.Hour)},
		{"one", "1"},
		{"minus-one", "-1"},
		{"minus-zero", "-0"},
		{"minus-huge", "-1e300"},
		{"fraction-past", at(-time.Hour) + ".75"},
		{"tiny", "1e-300"},
		{"underflow", "1e-400"},
	}
	ahead := []member{
		{"in-10m", at(10 * time.Minute)},
		{"in-two-hours", at(2 * time.Hour)},
		{"in-ten-years", at(10 * 365 * 24 * time.Hour)},
		{"fraction", at(2*time.Hour) + ".5"},
		{"long-fraction", at(2*time.Hour) + "." + strings.Repeat("3", 400)},
		{"exponent", fmt.Sprintf("%.9e", float64(c.now.Add(2*time.Hour).Unix()))},
		{"exponent-upper", strings.ToUpper(fmt.Sprintf("%.9e", float64(c.now.Add(2*time.Hour).Unix())))},
		{"exponent-zero", at(2*time.Hour) + "e0"},
		{"exponent-minus", at(2*time.Hour) + "000e-3"},
		{"milliseconds", at(2*time.Hour) + "000"},
		{"year-9999", "253402300799"},
		{"year-10000", "253402300800"},
		{"int32", "2147483647"},
		{"over-int32", "2147483648"},
		{"uint32", "4294967296"},
		{"int53", "9007199254740993"},
		{"int63", "9223372036854775807"},
		{"over-int63", "9223372036854775808"},
		{"uint64", "18446744073709551616"},
		{"huge", "1e300"},
		{"overflow", "1e400"},
		{"many-digits", strings.Repeat("9", 400)},
	}
	odd := []member{
		{"nan", "NaN"},
		{"infinity", "Infinity"},
		{"minus-infinity", "-Infinity"},
		{"string-nan", `"NaN"`},
		{"string-infinity", `"Infinity"`},
		{"string-past", `"` + at(-time.Hour) + `"`},
		{"string-ahead", `"` + at(2*time.Hour) + `"`},
		{"string-fraction", `"` + at(2*time.Hour) + `.5"`},
		{"string-exponent", `"1e300"`},
		{"string-space", `" ` + at(2*time.Hour) + ` "`},
		{"string-underscore", `"9_999_999_999"`},
		{"string-date", `"2099-01-01T00:00:00Z"`},
		{"string-hex", `"0xFFFFFFFFF"`},
		{"string-wide-digits", `"\uff19\uff19\uff19\uff19\uff19\uff19\uff19\uff19\uff19\uff19"`},
		{"hex", "0xFFFFFFFFF"},
		{"leading-zero", "0" + at(2*time.Hour)},
		{"plus", "+" + at(2*time.Hour)},
		{"point", at(2*time.Hour) + "."},
		{"list-of-two", "[" + at(-time.Hour) + "," + at(2*time.Hour) + "]"},
	}
	for _, claim := range []string{"exp", "iat", "nbf", "auth_time"} {
		if claim == "auth_time" && b.name != "machine" {
			continue // nobody looks at it
		}
		for _, group := range [][]member{past, ahead, odd} {
			for _, v := range group {
				c.claim(b, claim+"/at-"+v.name, claim, v.value)
			}
		}
	}
	for _, v := range []member{{"null", "null"}, {"true", "true"}, {"empty", `""`}, {"object", "{}"}, {"zero", "0"}, {"false", "false"}} {
		c.claim(b, "nbf/"+v.name, "nbf", v.value)
	}
	b.claims = b.claims.set("iat", at(-time.Hour)).set("nbf", at(-time.Hour)).set("exp", at(-2*time.Hour))
	c.add(b, "exp/before-iat", c.sign(b))
}

func (c *corpus) audiences(b base) {
	for _, v := range []member{
		{"string", quoted("https://api.example.com")},
		{"list", `["https://api.example.com"]`},
		{"client", quoted(client)},
		{"empty", `""`},
		{"empty-list", "[]"},
		{"null", "null"},
		{"number", "1"},
		{"true", "true"},
		{"object", "{}"},
		{"list-with-number", `["https://api.example.com",1]`},
		{"list-with-null", "[null]"},
		{"list-of-lists", `[["a"]]`},
	} {
		c.claim(b, "audience/"+v.name, "aud", v.value)
	}
}

func (c *corpus) scopes(b base) {
	for _, v := range []member{
		{"one", "orders/read"},
		{"duplicate", "orders/read orders/read"},
		{"two-spaces", "orders/read  orders/write"},
		{"space-around", " orders/read "},
		{"tab", "orders/read\torders/write"},
		{"line-feed", "orders/read\norders/write"},
		{"carriage-return", "orders/read\rorders/write"},
		{"form-feed", "orders/read\forders/write"},
		{"vertical-tab", "orders/read\vorders/write"},
		{"nbsp", "orders/read\u00a0orders/write"},
		{"line-separator", "orders/read\u2028orders/write"},
		{"next-line", "orders/read\u0085orders/write"},
		{"file-separator", "orders/read\u001corders/write"},
		{"wide-space", "orders/read\u3000orders/write"},
		{"zero-width-space", "orders/read\u200borders/write"},
		{"nul", "orders/read\x00orders/write"},
		{"delete", "orders/read\x7f"},
		{"comma", "orders/read,orders/write"},
		{"plus", "orders/read+orders/write"},
		{"quote", `orders/"read"`},
		{"backslash", `orders\read`},
		{"upper", "ORDERS/READ"},
		{"url", "https://orders.example.com/read"},
		{"umlaut", "orders/lösch"},
		{"wildcard", "orders/*"},
		{"long", strings.TrimSpace(strings.Repeat("orders/read ", 500))},
	} {
		c.claim(b, "scopes/"+v.name, "scope", quoted(v.value))
	}
	for _, v := range []member{
		{"list", `["orders/read","orders/write"]`},
		{"list-with-joined", `["orders/read orders/write"]`},
		{"list-with-number", "[1]"},
		{"lone-surrogate", `"orders/read \ud800"`},
		{"escaped-space", `"orders/read\u0020orders/write"`},
		{"escaped-tab", `"orders/read\torders/write"`},
		{"number", "1"},
		{"raw-tab", "\"orders/read\torders/write\""},
	} {
		c.claim(b, "scopes/"+v.name+"-json", "scope", v.value)
	}
	c.claim(b, "scopes/scp", "scp", `["orders/admin"]`)
	c.claim(b, "scopes/scopes", "scopes", `["orders/admin"]`)
}

// memberNames writes names in other ways: what is not exactly the name is another name (RFC 7519 section 4).
func (c *corpus) memberNames(b base) {
	for _, name := range []string{"iss", "exp", "iat", "token_use", "client_id", "scope", "sub", "jti"} {
		value := b.claims.get(name)
		for _, other := range []member{
			{"upper", strings.ToUpper(name)},
			{"title", strings.ToUpper(name[:1]) + name[1:]},
			{"space", name + " "},
			{"long-s", strings.Replace(name, "s", "ſ", 1)},
			{"no-underscore", strings.ReplaceAll(name, "_", "")},
		} {
			if other.value == name {
				continue
			}
			only := b
			only.claims = b.claims.without(name).with(other.value, value)
			c.add(b, "member-names/"+name+"-"+other.name+"-instead", c.sign(only))
			wrong := b
			wrong.claims = b.claims.with(other.value, `"wrong"`)
			c.add(b, "member-names/"+name+"-"+other.name+"-too", c.sign(wrong))
		}
		other := b
		other.claims = b.claims.without(name).with(escaped(`"`+name+`"`), value)
		c.add(b, "member-names/"+name+"-escaped", c.sign(other))
	}
	c.claim(b, "member-names/prototype", "__proto__", `{"client_id":"other","isAdmin":true}`)
	c.claim(b, "member-names/constructor", "constructor", `{"prototype":{"client_id":"other"}}`)
	c.claim(b, "member-names/empty", `""`, "1")
	without := b
	without.claims = b.claims.without("client_id").with("__proto__", `{"client_id":`+quoted(client)+"}")
	c.add(b, "member-names/client_id-by-prototype", c.sign(without))
}

// duplicates has members twice, which I-JSON forbids (RFC 7493 section 2.3).
func (c *corpus) duplicates(b base) {
	wrong := map[string]string{"exp": "1", "iat": "9999999999"}
	for _, name := range []string{"iss", "exp", "iat", "token_use", "client_id", "scope", "sub", "jti"} {
		value := wrong[name]
		if value == "" {
			value = `"wrong"`
		}
		for how, claims := range map[string]object{
			"wrong-last":         b.claims.with(name, value),
			"wrong-first":        b.claims.first(name, value),
			"same":               b.claims.with(name, b.claims.get(name)),
			"escaped-wrong-last": b.claims.with(escaped(`"`+name+`"`), value),
		} {
			twice := b
			twice.claims = claims
			c.add(b, "duplicates/"+name+"-"+how, c.sign(twice))
		}
	}
	c.claim(b, "duplicates/unknown-claim", "tenant", `"a","tenant":"b"`)
	c.claim(b, "duplicates/nested", "tenant", `{"a":1,"a":2}`)
	c.claim(b, "duplicates/nested-in-list", "tenant", `[{"a":1,"a":2}]`)
	for _, name := range []string{"alg", "kid"} {
		for how, header := range map[string]object{
			"wrong-last":  b.header.with(name, `"none"`),
			"wrong-first": b.header.first(name, `"none"`),
			"same":        b.header.with(name, b.header.get(name)),
		} {
			twice := b
			twice.header = header
			c.add(b, "duplicates/header-"+name+"-"+how, c.sign(twice))
		}
	}
	c.param(b, "duplicates/header-unknown", "x", `1,"x":2`)
}
