// Receives events by HTTP with Node's SDK of CloudEvents, and prints each as one line of JSON.
//
// receive.mjs: the first line is the port. NODE_PATH names the modules.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const { HTTP } = createRequire(`${process.env.NODE_PATH}/x.js`)("cloudevents");
const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    const event = HTTP.toEvent({ headers: request.headers, body: Buffer.concat(chunks).toString() });
    event.validate();
    const { data, data_base64, ...attributes } = event.toJSON();
    attributes.time = new Date(event.time).toISOString();
    console.log(JSON.stringify({ path: request.url, attributes, data: data ?? data_base64 }));
    response.writeHead(204).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
