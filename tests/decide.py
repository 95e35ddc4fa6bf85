"""Asks the gates with pika, as any program in any language would.

decide.py BROKER_URL NAMESPACE TYPE ID JSON: prints the answer.
"""

import json
import sys
import time

import pika

SECONDS = 20  # the machine of a test may be slow
REPLY_TO = "amq.rabbitmq.reply-to"  # no queue: answers come straight to the channel

url, namespace, kind, name, data = sys.argv[1:]
event = {"specversion": "1.0", "type": kind, "source": "/python", "id": name, "data": json.loads(data)}
answers = []
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.basic_consume(REPLY_TO, lambda *given: answers.append(given[3]), auto_ack=True)
properties = pika.BasicProperties(
    content_type="application/cloudevents+json",
    reply_to=REPLY_TO,
    correlation_id=name,
    expiration=str(SECONDS * 1000),
    headers={"hookfleet-deadline": int((time.time() + SECONDS) * 1000)},
)
channel.basic_publish(f"{namespace}.gates", kind, json.dumps(event), properties)
until = time.monotonic() + SECONDS
while not answers and time.monotonic() < until:
    connection.process_data_events(time_limit=1)
connection.close()
if not answers:
    sys.exit("nobody has answered")
print(answers[0].decode())
