// Verifies the tokens of the corpus with aws-jwt-verify. It reads a JSON line for each token and answers with one.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

// The packages lie in the folder that INTEROP_NODE_MODULES names, not beside this file.
const require = createRequire(process.env.INTEROP_NODE_MODULES + "/");
const { CognitoJwtVerifier } = require("aws-jwt-verify");
const { SimpleJwksCache } = require("aws-jwt-verify/jwk");

async function verify(q) {
  // The fetcher is the library's own hook: all that is replaced is the way to the network.
  const fetcher = { fetch: async () => new TextEncoder().encode(q.jwks).buffer };
  const verifier = CognitoJwtVerifier.create(
    { userPoolId: q.userPoolId, tokenUse: q.tokenUse, clientId: q.clientIds },
    { jwksCache: new SimpleJwksCache({ fetcher }) },
  );
  const claims = await verifier.verify(q.token);
  const client = q.tokenUse === "id" ? claims.aud : claims.client_id;
  return { accepted: true, clientId: String(client), scopes: (claims.scope ?? "").split(" ") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const q = JSON.parse(line);
  let answer;
  try {
    answer = await verify(q);
  } catch (e) {
    answer = { accepted: false, error: `${e.name}: ${e.message}` };
  }
  process.stdout.write(JSON.stringify({ name: q.name, ...answer }) + "\n");
}
