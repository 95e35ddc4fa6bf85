"""Publishes CloudEvents with pika, as any program in any language would: publish.py PORT EXCHANGE COUNT."""

import json
import sys

import pika

port, exchange, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
channel = connection.channel()
channel.confirm_delivery()
properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
for number in range(count):
    event = {"specversion": "1.0", "id": f"py-{number}", "source": "/python", "type": "order.paid", "data": {"n": number}}
    channel.basic_publish(exchange, event["type"], json.dumps(event), properties)
connection.close()
