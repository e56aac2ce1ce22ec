"""Asks STS at the endpoint on the command line who is calling, by botocore, which the AWS CLI is made of.

The credentials are those of the profile in the environment. It prints them with the answer, as JSON.
"""

import json
import sys

import botocore.session

session = botocore.session.get_session()
credentials = session.get_credentials()
frozen = credentials.get_frozen_credentials()
who = session.create_client("sts", endpoint_url=sys.argv[1]).get_caller_identity()
json.dump(
    {
        "Account": who["Account"],
        "AccessKey": frozen.access_key,
        "SessionToken": frozen.token,
        "Method": credentials.method,
        "Expires": credentials._expiry_time.isoformat(),
    },
    sys.stdout,
)
