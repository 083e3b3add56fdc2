// The client, and the page's other requests to the server.

import { AttachmentClient, collection, headers, server } from "./settings.js";

export const client = new AttachmentClient(server, { headers, retries: 5 });

/** The rules for files. Empty if the first upload will create the collection. */
export async function rules() {
  const url = `${server}${collection}/attachments/rules`;
  const response = await fetch(url, { headers: await headers() });
  if (response.status === 404) return {};
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return (await response.json()).data;
}
