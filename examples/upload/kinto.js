// The server, and what this page asks of it beside uploads.

import { AttachmentClient, collection, headers, server } from "./settings.js";

export const client = new AttachmentClient(server, { headers, retries: 5 });

/** What the server takes; nothing if the collection will be created by the first upload. */
export async function rules() {
  const url = `${server}${collection}/attachments/rules`;
  const response = await fetch(url, { headers: await headers() });
  if (response.status === 404) return {};
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return (await response.json()).data;
}
