// Publishes one event with a client library of Node, as its documentation has it.
//
// publish.mjs CLIENT AMQP_PORT MQTT_PORT EXCHANGE ADDRESS: ADDRESS is the target for AMQP 1.0. NODE_PATH names the modules.
import { createRequire } from "node:module";

const [client, amqpPort, mqttPort, exchange, address] = process.argv.slice(2);
const require = createRequire(`${process.env.NODE_PATH}/x.js`);
const key = "order.paid";
const data = { order: 17, price: 12.5 };
const url = `amqp://guest:guest@127.0.0.1:${amqpPort}`;

function event() {
  const { CloudEvent } = require("cloudevents");
  const time = "2026-12-01T12:00:00.123Z";
  return new CloudEvent({ id: "order-17", source: "/shop", type: key, time, datacontenttype: "application/json", data });
}

async function withAmqplib(body, options) {
  const connection = await require("amqplib").connect(url);
  const channel = await connection.createConfirmChannel();
  channel.publish(exchange, key, Buffer.from(body), options);
  await channel.waitForConfirms();
  await connection.close();
}

function withRhea(message) {
  return new Promise((resolve, reject) => {
    const container = require("rhea").create_container();
    container.on("sendable", (context) => context.sender.send(message));
    container.on("accepted", (context) => context.connection.close());
    container.on("released", () => reject(new Error("released")));
    container.on("rejected", () => reject(new Error("rejected")));
    container.on("connection_close", resolve);
    container.on("disconnected", (context) => reject(context.error));
    container.connect({ host: "127.0.0.1", port: Number(amqpPort), username: "guest", password: "guest", reconnect: false })
      .open_sender(address);
  });
}

async function withMqtt(payload, properties) {
  const options = { protocolVersion: 5, username: "guest", password: "guest" };
  const connection = await require("mqtt").connectAsync(`mqtt://127.0.0.1:${mqttPort}`, options);
  await connection.publishAsync(key.replace(".", "/"), payload, { qos: 1, properties });
  await connection.endAsync();
}

const clients = {
  amqplib_json: () => withAmqplib(JSON.stringify(data), {}),
  amqplib_properties: () => withAmqplib(JSON.stringify(data), { type: key, messageId: "order-17", appId: "shop" }),
  async rascal_json() {
    const { BrokerAsPromised } = require("rascal");
    const publications = { paid: { exchange, routingKey: key } };
    const exchanges = { [exchange]: { assert: false, check: true } };
    const broker = await BrokerAsPromised.create({ vhosts: { "/": { connection: { url }, exchanges, publications } } });
    const publication = await broker.publish("paid", data, { options: { messageId: "order-17" } });
    await new Promise((resolve, reject) => publication.on("success", resolve).on("error", reject));
    await broker.shutdown();
  },
  rhea_text: () => withRhea({ body: JSON.stringify({ ...event().toJSON() }) }),
  rhea_data() {
    const { message } = require("rhea");
    const headers = { "cloudEvents:specversion": "1.0", "cloudEvents:id": "order-17", "cloudEvents:source": "/shop" };
    const body = message.data_section(Buffer.from(JSON.stringify(data)));
    return withRhea({
      body,
      content_type: "application/json",
      application_properties: { ...headers, "cloudEvents:type": key },
    });
  },
  mqtt_cloudevents() {
    const { MQTT } = require("cloudevents");
    const message = MQTT.binary(event());
    const given = Object.entries(message["User Properties"]).filter(([, value]) => value !== undefined);
    const properties = { contentType: message.PUBLISH["Content Type"], userProperties: Object.fromEntries(given) };
    return withMqtt(JSON.stringify(message.payload), properties);
  },
};

await clients[client]();
process.exit(0);
