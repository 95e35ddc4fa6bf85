"""Publishes one event with a client library of Python, as its documentation has it.

publish.py CLIENT AMQP_PORT MQTT_PORT STOMP_PORT EXCHANGE ADDRESS: ADDRESS is the target for AMQP 1.0.
"""

import asyncio
import datetime
import json
import sys

client, amqp_port, mqtt_port, stomp_port, exchange, address = sys.argv[1:]
URL = f"amqp://guest:guest@127.0.0.1:{amqp_port}//"
KEY = "order.paid"
DATA = {"order": 17, "price": 12.5}
TIME = datetime.datetime(2026, 12, 1, 12, 0, 0, 123000, tzinfo=datetime.timezone.utc)


def with_pika(body, **properties):
    import pika

    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(amqp_port)))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(exchange, KEY, body, pika.BasicProperties(**properties))
    connection.close()


def cloudevent():
    from cloudevents.core.v1.event import CloudEvent

    attributes = {"id": "order-17", "source": "/shop", "type": KEY, "specversion": "1.0", "time": TIME}
    return CloudEvent(attributes=attributes | {"datacontenttype": "application/json"}, data=DATA)


def cloudevents_amqp():
    from cloudevents.core.bindings.amqp import to_binary_event

    message = to_binary_event(cloudevent())
    content_type = message.properties["content-type"]
    with_pika(message.application_data, content_type=content_type, headers=message.application_properties)


def cloudevents_amqp_structured():
    from cloudevents.core.bindings.amqp import to_structured_event

    message = to_structured_event(cloudevent())
    with_pika(message.application_data, content_type=message.properties["content-type"])


def cloudevents_rabbitmq():
    from cloudevents.core.bindings.rabbitmq import to_binary_event

    message = to_binary_event(cloudevent())
    with_pika(message.body, content_type=message.content_type, headers=message.headers)


def with_kombu(**options):
    import kombu

    with kombu.Connection(URL) as connection:
        target = kombu.Exchange(exchange, type="topic", passive=True)
        connection.Producer().publish(DATA, exchange=target, routing_key=KEY, declare=[], **options)


def kombu_json():
    with_kombu()


def kombu_gzip():
    with_kombu(compression="gzip", type=KEY, message_id="order-17")


def celery_task():
    import celery
    import kombu

    app = celery.Celery(broker=URL)
    target = kombu.Exchange(exchange, type="topic", passive=True)
    app.conf.task_queues = [kombu.Queue("unused", target, routing_key=KEY, no_declare=True)]
    app.send_task("shop.order_paid", args=[17], kwargs={"price": 12.5}, task_id="task-17", exchange=target, routing_key=KEY,
                  ignore_result=True)


def aio_pika_json():
    import aio_pika

    async def publish():
        async with await aio_pika.connect(URL) as connection:
            channel = await connection.channel()
            target = await channel.get_exchange(exchange, ensure=False)
            body = json.dumps(DATA).encode()
            await target.publish(aio_pika.Message(body, content_type="application/json", message_id="order-17"), KEY)

    asyncio.run(publish())


def faststream_json():
    from faststream.rabbit import RabbitBroker, RabbitExchange

    async def publish():
        async with RabbitBroker(URL) as broker:
            target = RabbitExchange(exchange, declare=False)
            await broker.publish(DATA, exchange=target, routing_key=KEY, message_id="order-17", timestamp=TIME)

    asyncio.run(publish())


def with_proton(message):
    from proton.utils import BlockingConnection

    connection = BlockingConnection(f"amqp://guest:guest@127.0.0.1:{amqp_port}", allowed_mechs="PLAIN")
    connection.create_sender(address).send(message)
    connection.close()


def proton_text():
    from proton import Message

    event = {"specversion": "1.0", "id": "order-17", "source": "/shop", "type": KEY, "data": DATA}
    with_proton(Message(body=json.dumps(event)))


def proton_cloudevents():
    from proton import Message, timestamp

    attributes = {"specversion": "1.0", "id": "order-17", "source": "/shop", "type": KEY, "priority": 3}
    headers = {f"cloudEvents_{name}": value for name, value in attributes.items()}
    headers["cloudEvents_time"] = timestamp(int(TIME.timestamp() * 1000))
    with_proton(Message(body=json.dumps(DATA).encode(), inferred=True, content_type="application/json", properties=headers))


def with_paho(payload, content_type, headers):
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.PUBLISH)
    if content_type:
        properties.ContentType = content_type
    properties.UserProperty = list(headers.items())
    connection = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    connection.username_pw_set("guest", "guest")
    connection.connect("127.0.0.1", int(mqtt_port))
    connection.loop_start()
    connection.publish(KEY.replace(".", "/"), payload, qos=1, properties=properties).wait_for_publish(30)
    connection.disconnect()
    connection.loop_stop()


def paho_cloudevents():
    headers = {"specversion": "1.0", "id": "order-17", "source": "/shop", "type": KEY, "time": "2026-12-01T12:00:00.123Z"}
    with_paho(json.dumps(DATA), "application/json", headers)


def paho_cloudevents_text():
    headers = {"specversion": "1.0", "id": "order-17", "source": "/shop", "type": KEY}
    with_paho("seventeen", "text/plain", headers)


def stomp_cloudevents():
    import stomp

    connection = stomp.Connection12([("127.0.0.1", int(stomp_port))], vhost="/")
    connection.connect("guest", "guest", wait=True)
    headers = {"ce-specversion": "1.0", "ce-id": "order-17", "ce-source": "/shop", "ce-type": KEY}
    connection.send(f"/exchange/{exchange}/{KEY}", json.dumps(DATA), "application/json", headers | {"receipt": "r"})
    connection.disconnect(receipt="r-2")


def stomp_json():
    import stomp

    connection = stomp.Connection12([("127.0.0.1", int(stomp_port))], vhost="/")
    connection.connect("guest", "guest", wait=True)
    headers = {"type": KEY, "amqp-message-id": "order-17", "app-id": "shop"}
    connection.send(f"/exchange/{exchange}/{KEY}", json.dumps(DATA), "application/json", headers)
    connection.disconnect(receipt="r")


globals()[client]()
