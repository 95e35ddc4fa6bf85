"""Verifies deliveries as a receiver would: with the package `standardwebhooks`, and with what Python has for the rest.

verify.py FILE: a delivery a line, {"hook", "headers", "body"}; prints how many of each hook were verified.
"""

import base64
import collections
import hashlib
import hmac
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

OLD, NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
public = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32).public_key()


def standard(*keys):
    def verify(headers, body):
        for key in keys:
            Webhook(key).verify(body, headers)

    return verify


def asymmetric(headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    found = [one[4:] for one in headers["webhook-signature"].split(" ") if one.startswith("v1a,")]
    public.verify(base64.b64decode(found[0]), signed)


def plain(headers, body):
    expected = "sha256=" + hmac.new(b"open sesame", body.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["x-hub-signature-256"]):
        raise InvalidSignature


SCHEMES = {
    "one": standard(OLD),
    "rotated": standard(OLD, NEW),
    "asymmetric": asymmetric,
    "plain": plain,
}


def verified(scheme, headers, body):
    try:
        scheme(headers, body)
        return True
    except (InvalidSignature, WebhookVerificationError):
        return False


counts = collections.Counter()
for line in open(sys.argv[1]):
    delivery = json.loads(line)
    scheme, headers, body = SCHEMES[delivery["hook"]], delivery["headers"], delivery["body"]
    counts[delivery["hook"]] += verified(scheme, headers, body)
    if verified(scheme, headers, body.replace("paid", "free")):
        sys.exit(f"{delivery['hook']}: a changed body was taken for the signed one")
print(json.dumps(counts, sort_keys=True))
