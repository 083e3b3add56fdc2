// The server, and what this page asks of it beside uploads.

import { AttachmentClient, collection, headers, server } from "./settings.js";

export const client = new AttachmentClient(server, { headers, retries: 5 });

/** What the server takes; nothing if the collection will be created by the first upload. */
export async function rules() {
  return (await told(`${collection}/attachments/rules`)) ?? {};
}

/** A link that needs no credentials, for pictures and other tabs; it works for an hour. */
export async function link(record) {
  return (await told(`${record}/attachment/url?expires_in=1h`))?.url;
}

async function told(path) {
  const response = await fetch(server + path, { headers: await headers() });
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return (await response.json()).data;
}
