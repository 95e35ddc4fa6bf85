"""Publishes CloudEvents with pika, as any program in any language would.

publish.py PORT EXCHANGE COUNT [structured|binary]: the same events in either mode.
"""

import datetime
import json
import sys

import pika

port, exchange, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
binary = sys.argv[4:] == ["binary"]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
channel = connection.channel()
channel.confirm_delivery()
time = datetime.datetime(2026, 11, 20, 12, 0, 0)
for number in range(count):
    attributes = {"specversion": "1.0", "id": f"py-{number}", "source": "/python", "type": "order.paid", "round": 7}
    data = {"n": number}
    if binary:
        headers = {f"cloudEvents:{name}": value for name, value in attributes.items()} | {"cloudEvents:time": time}
        properties = pika.BasicProperties(content_type="application/json", headers=headers, delivery_mode=2)
        body = json.dumps(data)
    else:
        properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        rest = {"time": time.isoformat() + "Z", "datacontenttype": "application/json", "data": data}
        body = json.dumps(attributes | rest)
    channel.basic_publish(exchange, attributes["type"], body, properties)
connection.close()
