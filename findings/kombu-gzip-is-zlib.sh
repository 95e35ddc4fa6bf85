#!/usr/bin/env bash
# kombu 5.7.0 (and Celery over it): a body published with compression="gzip" is no gzip.
#
# The message says `compression: application/x-gzip` in its headers, and its content encoding is that of the text (utf-8).
# The bytes are a zlib stream (RFC 1950), which begins with 0x78, where gzip (RFC 1952) begins with 0x1f 0x8b. A consumer
# that goes by the name and uses a gzip decoder refuses every such message.
#
# Seen with Python 3.11 from PyPI:
#   application/x-gzip 789c
#   gzip refuses it: Not a gzipped file (b'x\x9c')
#   zlib reads it: {"order": 17}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kombu==5.7.0
said=$("$folder/venv/bin/python" - <<'PYTHON'
import gzip, zlib
from kombu.compression import compress

body, content_type = compress(b'{"order": 17}', "gzip")
print(content_type, body[:2].hex())
try:
    gzip.decompress(body)
except gzip.BadGzipFile as error:
    print("gzip refuses it:", error)
print("zlib reads it:", zlib.decompress(body).decode())
PYTHON
)
printf '%s\n' "$said"
expected='application/x-gzip 789c
gzip refuses it: Not a gzipped file (b'"'"'x\x9c'"'"')
zlib reads it: {"order": 17}'
[ "$said" = "$expected" ] || { echo "kombu behaves in another way than is written here" >&2; exit 1; }
