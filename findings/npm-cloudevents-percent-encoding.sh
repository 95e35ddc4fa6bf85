#!/usr/bin/env bash
# npm cloudevents 10.0.0 does not percent-decode the attributes of an event in HTTP's binary mode, and does not encode them.
#
# CloudEvents' HTTP protocol binding 1.0.2, 3.1.3.2: spaces, double quotes, percent signs and what is no printable ASCII
# "MUST be percent-encoded" in the values of `ce-` headers, and receivers MUST decode them. `HTTP.toEvent` hands on the
# encoded text, so that an event has another id in binary mode than in structured mode. `HTTP.binary` writes an id with a
# euro sign into a header as it is, which Node's own HTTP client refuses.
#
# Seen with Node 18 and 20:
#   decoded: order%2017
#   encoded: order € 17
#   node:http refuses the header: ERR_INVALID_CHAR
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0 >/dev/null
said=$(node - <<'NODE'
const http = require("node:http");
const { CloudEvent, HTTP } = require("cloudevents");

const headers = { "ce-specversion": "1.0", "ce-id": "order%2017", "ce-source": "/shop", "ce-type": "order.paid" };
console.log("decoded:", HTTP.toEvent({ headers, body: "" }).id);
const message = HTTP.binary(new CloudEvent({ id: "order € 17", source: "/shop", type: "order.paid" }));
console.log("encoded:", message.headers["ce-id"]);
try {
  http.validateHeaderValue("ce-id", message.headers["ce-id"]);
} catch (error) {
  console.log("node:http refuses the header:", error.code);
}
NODE
)
printf '%s\n' "$said"
expected='decoded: order%2017
encoded: order € 17
node:http refuses the header: ERR_INVALID_CHAR'
[ "$said" = "$expected" ] || { echo "cloudevents behaves in another way than is written here" >&2; exit 1; }
