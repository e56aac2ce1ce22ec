"""Verifies the tokens of the corpus with the package named on the command line, m2m-cognito or cognitojwt.

It reads a JSON line for each token and answers with one.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
import types


def m2m_cognito(q, _folder):
    import jwt.jwks_client
    from m2m_cognito import CognitoAccessTokenValidator

    # The package has no hook for the fetch: all that is replaced is the way to the network.
    opener = types.SimpleNamespace(open=lambda *_, **__: io.BytesIO(q["jwks"].encode()))
    jwt.jwks_client.urllib.request.build_opener = lambda *_: opener
    pool = CognitoAccessTokenValidator(
        region=q["region"], user_pool_id=q["userPoolId"], allowed_client_ids=q["clientIds"]
    )
    token = pool.validate(q["token"])
    return token.client_id, sorted(token.scopes)


def cognitojwt(q, folder):
    import cognitojwt

    # This variable is the package's own hook.
    path = os.path.join(folder, hashlib.sha256(q["jwks"].encode()).hexdigest())
    if not os.path.exists(path):
        with open(path, "w", encoding="utf-8") as f:
            f.write(q["jwks"])
    os.environ["AWS_COGNITO_JWKS_PATH"] = path
    claims = cognitojwt.decode(q["token"], q["region"], q["userPoolId"], app_client_id=q["clientIds"])
    # The package takes either kind of token, so its caller has to look.
    if claims["token_use"] != q["tokenUse"]:
        raise ValueError("token_use")
    client = claims["aud" if q["tokenUse"] == "id" else "client_id"]
    return str(client), str(claims.get("scope") or "").split(" ")


def main():
    verify = {"m2m-cognito": m2m_cognito, "cognitojwt": cognitojwt}[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin.buffer:
            q = json.loads(line)
            answer = {"name": q["name"], "accepted": False}
            try:
                client, scopes = verify(q, folder)
                answer.update(accepted=True, clientId=client, scopes=scopes)
            except Exception as e:  # whatever a token can make the package raise
                answer["error"] = f"{type(e).__name__}: {e}"
            print(json.dumps(answer))


main()
