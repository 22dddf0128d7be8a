// Takes in the messages of Plausible Webhooks: each once, into a folder.
import { randomUUID } from "node:crypto";
import { link, mkdir, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

import { verify } from "./verify.mjs";

const inbox = process.env.INBOX ?? "inbox";
const largestBody = 4 * 1024 * 1024;
const idForm = /^[A-Za-z0-9_-]{1,100}$/; // the id becomes a file's name

await mkdir(inbox, { recursive: true, mode: 0o700 });
const server = createServer(receive);
server.listen(process.env.PORT ?? 8080, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

async function receive(request, response) {
  const answer = (status, text) => response.writeHead(status, { "Content-Type": "text/plain" }).end(text);
  try {
    if (request.method !== "POST" || request.url !== "/webhooks") {
      return answer(404, "POST to /webhooks");
    }
    const body = await read(request);
    if (body === null) {
      return answer(413, "the body is too large");
    }
    try {
      verify(body, request.headers);
    } catch (error) {
      return answer(401, error.message);
    }
    const isNew = await keep(request.headers["webhook-id"], body);
    response.writeHead(204).end();
    if (isNew) {
      work(JSON.parse(body));
    }
  } catch (error) {
    console.error(error);
    if (!response.headersSent) {
      answer(500, "the message cannot be kept");
    }
  }
}

// The bytes as they came: JSON that was parsed and written again has another signature.
async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= largestBody) {
      chunks.push(chunk);
    }
  }
  return size <= largestBody ? Buffer.concat(chunks) : null;
}

// Stores a message, and tells whether it is new. A name is linked once, whoever else tries at the
// same time, and the file behind it is complete.
async function keep(id, body) {
  if (!idForm.test(id)) {
    throw new Error("the webhook-id is malformed");
  }
  const part = join(inbox, `part-${randomUUID()}`);
  try {
    await writeFile(part, body, { mode: 0o600 });
    await link(part, join(inbox, `${id}.json`));
    return true;
  } catch (error) {
    if (error.code === "EEXIST") {
      return false;
    }
    throw error;
  } finally {
    await unlink(part).catch(() => {}); // it is in nobody's way
  }
}

// Here yours begins. The sender has its answer already.
function work(message) {
  if (message.type === "batch") {
    message.data.messages.forEach(work);
    return;
  }
  console.log(message.type, message.data.id);
}
