// One file in the list. It can be sent, paused, continued and removed, and is shown at the end.

import { client } from "./kinto.js";
import { sizeText } from "./sizes.js";

const template = document.getElementById("row");

// The button in each state. "missing": the page was reloaded, and the file has to be chosen again.
const ACTIONS = {
  waiting: "Pause",
  sending: "Pause",
  paused: "Continue",
  failed: "Try again",
  missing: "Choose",
};

export class Upload {
  /** `on` has functions: `change` and `choose` get the upload, `news` gets a text. */
  constructor(file, options, on) {
    this.file = file;
    this.options = options;
    this.state = "waiting";
    this.sent = 0;
    this.on = on;
    this.element = template.content.cloneNode(true).firstElementChild;
    this.part("name").textContent = file.name;
    this.part("name").title = file.name;
    this.part("picture").textContent = file.name.match(/\.(\w{1,5})$/)?.[1].toUpperCase() ?? "";
    this.bar = this.element.querySelector("progress");
    this.bar.setAttribute("aria-label", file.name);
    this.part("remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.part("remove").onclick = () => this.remove();
    this.part("go").onclick = () => this.go();
    this.render();
  }

  part(name) {
    return this.element.querySelector(`.${name}`);
  }

  /** Whether this is the same file, which may have been chosen before a reload. */
  isOf({ name, type, size, lastModified }) {
    const { file } = this;
    const isSame = file.name === name && file.type === type;
    return isSame && file.size === size && file.lastModified === lastModified;
  }

  go() {
    if (this.state === "missing") this.on.choose(this);
    else if (["waiting", "sending"].includes(this.state)) this.pause();
    else this.set("waiting");
  }

  pause() {
    this.controller?.abort();
    this.set("paused", "", `${this.file.name} is paused.`);
  }

  async send() {
    this.controller = new AbortController();
    const { signal } = this.controller;
    const onProgress = (sent) => {
      if (signal.aborted) return;
      this.sent = sent;
      this.render();
    };
    this.set("sending");
    try {
      this.running = client.upload(this.file, { ...this.options, signal, onProgress });
      const { record, attachment } = await this.running;
      this.set("done", "", `${this.file.name} is uploaded.`);
      await this.show(record, attachment);
    } catch (error) {
      if (!signal.aborted) this.fail("failed", error.message);
    }
  }

  /** The state is `refused` if a retry would not help. */
  fail(state, message) {
    this.set(state, message, `${this.file.name}: ${message}`);
  }

  async show(record, { filename, mimetype }) {
    const link = await client.link(record, { expiresIn: "1h" }).catch(() => undefined);
    if (!link) return;
    const open = this.part("open");
    open.href = link.url;
    open.hidden = false;
    open.setAttribute("aria-label", `Open ${filename}`);
    if (!mimetype.startsWith("image/")) return;
    const image = new Image();
    image.alt = "";
    image.onload = () => this.part("picture").replaceChildren(image);
    image.src = link.url;
  }

  async remove() {
    this.controller?.abort();
    await this.running?.catch(() => {});
    // Otherwise, the server would keep the bytes for a day.
    await client.cancel(this.file, this.options).catch(() => {});
    this.set("removed", "", `${this.file.name} is removed from the list.`);
  }

  set(state, message = "", news = "") {
    this.state = state;
    this.message = message;
    this.render();
    if (news) this.on.news(news);
    this.on.change(this);
  }

  render() {
    const { state, sent } = this;
    const { size, name } = this.file;
    this.element.dataset.state = state;
    this.bar.max = size || 1;
    this.bar.value = state === "done" ? this.bar.max : sent;
    this.bar.hidden = ["done", "refused"].includes(state);
    this.part("status").textContent = this.message || this.text(sizeText(sent), sizeText(size));
    const go = this.part("go");
    go.hidden = !(state in ACTIONS);
    go.textContent = ACTIONS[state];
    go.setAttribute("aria-label", `${ACTIONS[state]} ${name}`);
    this.part("remove").hidden = state === "done";
  }

  text(sent, size) {
    if (this.state === "sending" && this.sent >= this.file.size) return `${size}, almost done`;
    return {
      waiting: `${size}, waiting`,
      sending: `${sent} of ${size}`,
      paused: `Paused at ${sent} of ${size}`,
      missing: `${sent} of ${size} have arrived. Choose the same file again to continue.`,
      done: `${size}, uploaded`,
    }[this.state];
  }
}
