#!/usr/bin/env bash
# RabbitMQ 3.10.8 (Debian 12): a wrong password is refused at once, or after three seconds and without a word, as the client announces.
#
# A client that announces the capability `authentication_failure_close` gets a Connection.Close at once, which says why. To any other the
# server says nothing for three seconds, and then closes the socket. pika announces it; amqp091-go 1.5.0, the library for Go in
# Debian 12, does not. A client of the second kind whose limit for a connect is shorter (the callback of an engine, a health check) never
# sees that its credentials are wrong: it reports a time-out, as if the broker were away, and tries again.
#
# Here pika is asked once as it is, and once with that capability switched off.
# Needs Debian's package rabbitmq-server; pika 1.3.2 is taken from PyPI.
#
# Seen with Python 3.11 (how the login ended, and after how many whole seconds):
#   right password: connected 0
#   wrong password, announced: ProbableAuthenticationError 0
#   wrong password, not announced: ProbableAuthenticationError 3
set -euo pipefail

server=/usr/lib/rabbitmq/bin/rabbitmq-server
[ -x "$server" ] || { echo "this needs Debian's package rabbitmq-server" >&2; exit 1; }
folder=$(mktemp -d)
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free)
export HOME="$folder" RABBITMQ_NODENAME="finding-$port@localhost" RABBITMQ_NODE_PORT="$port" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
export RABBITMQ_DIST_PORT=$(free) ERL_EPMD_PORT=$(free) ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_BASE="$folder"
export RABBITMQ_MNESIA_BASE="$folder/mnesia" RABBITMQ_LOG_BASE="$folder/log" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins"
export RABBITMQ_PID_FILE="$folder/pid" RABBITMQ_CONFIG_FILE="$folder/rabbitmq" RABBITMQ_CONF_ENV_FILE="$folder/none.conf"
echo '[].' > "$folder/plugins"
echo 'loopback_users = none' > "$folder/rabbitmq.conf"
"$server" > "$folder/out" 2>&1 &
began=$!
end() {
  kill "$began" 2>/dev/null && wait "$began" 2>/dev/null || true
  epmd -kill >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pika==1.3.2
said=$("$folder/venv/bin/python" - "$port" <<'PYTHON'
import socket
import sys
import time

import pika
from pika.exceptions import AMQPError

port = int(sys.argv[1])


def login(password, **properties):
    """How it ended, and after how many whole seconds."""
    credentials = pika.PlainCredentials("guest", password)
    parameters = pika.ConnectionParameters("127.0.0.1", port, "/", credentials, client_properties=properties)
    began = time.monotonic()
    try:
        pika.BlockingConnection(parameters).close()
        ended = "connected"
    except AMQPError as error:
        ended = type(error).__name__
    return ended, int(time.monotonic() - began)


for _ in range(240):  # until the server is there
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        if login("guest")[0] == "connected":
            break
    except OSError:
        pass
    time.sleep(0.5)
print("right password:", *login("guest"))
print("wrong password, announced:", *login("wrong"))
print("wrong password, not announced:", *login("wrong", capabilities={"authentication_failure_close": False}))
PYTHON
)
printf '%s\n' "$said"
expected='right password: connected 0
wrong password, announced: ProbableAuthenticationError 0
wrong password, not announced: ProbableAuthenticationError 3'
[ "$said" = "$expected" ] || { echo "RabbitMQ behaves in another way than is written here" >&2; exit 1; }
