// An issuer of client credentials tokens, by oidc-provider: at+jwt, with token_use as an extra claim.
// It prints its issuer once it listens, and ends when its input does.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { generateKeyPairSync } from "node:crypto";

const require = createRequire(process.env.INTEROP_NODE_MODULES + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const client = (id, secret = "secret", method = "client_secret_post") => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
  scope: "orders/read orders/write",
});
const settings = {
  // The last has what the encoding of RFC 6749 section 2.3.1 is for.
  clients: [client("orders-batch"), client("reports"), client("orders:basic", "s+c/r=t%e&:y", "client_secret_basic")],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "interop", alg: "RS256", use: "sig" }] },
  scopes: ["orders/read", "orders/write"],
  extraTokenClaims: () => ({ token_use: "access" }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://orders.example.com",
      getResourceServerInfo: () => ({
        scope: "orders/read orders/write",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
};

// The issuer has the port in it, which is known only once something listens.
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(issuer, settings).callback());
  console.log(JSON.stringify({ issuer }));
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
