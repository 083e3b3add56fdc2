// What to change when you copy this page; index.html has the addresses in its
// Content-Security-Policy, too.

// Where you have put the module.
export { AttachmentClient } from "../../js/kinto-attachment.js";

// The URL of Kinto with its version, and the collection that gets a record for each file.
export const server = "http://127.0.0.1:8888/v1";
export const collection = "/buckets/default/collections/uploads";

// Whether the bytes go to the storage itself: S3, with CORS rules of the bucket for this page.
export const direct = false;

// Called before each request. Here it is a user of "make serve"; your page knows who has signed in.
export const headers = () => ({ Authorization: `Basic ${btoa("alice:secret")}` });
