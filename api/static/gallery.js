// The pictures of a job: the newest large, all of them in a strip; a chosen one stays until the newest is chosen again.

import { pictureOf } from "./api.js";
import { bytes, el, isResult } from "./dom.js";

/** Below this, pixels are shown as pixels: samples of a small network, not previews of a photo. */
const SMALL_PX = 128;

export class Gallery {
  constructor(stage, canvas, caption, strip) {
    Object.assign(this, { stage, canvas, caption, strip });
    this.entries = new Map();
    this.chosen = null;
    this.shown = null;
    // Pictures far along the strip are fetched when they come into sight.
    this.sight = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach((one) => this.load(one.target)), { root: strip, rootMargin: "200px" });
  }

  /** Add a picture, or a new version of it under its name. */
  add(artifact) {
    const known = this.entries.get(artifact.name);
    if (known?.artifact.sha256 === artifact.sha256) return;
    const button = known?.button ?? this.newButton(artifact.name);
    button.replaceChildren();
    this.entries.set(artifact.name, { artifact, button });
    this.sight.unobserve(button);
    this.sight.observe(button);
    this.stage.hidden = false;
    this.strip.hidden = this.entries.size < 2;
    if (!this.chosen || this.chosen === artifact.name) this.show(this.current());
  }

  newButton(name) {
    const button = el("button", { type: "button", title: name, "aria-label": name, "aria-pressed": "false" });
    button.dataset.name = name;
    button.addEventListener("click", () => {
      this.chosen = name === this.newest() ? null : name;
      this.show(name);
    });
    this.strip.append(button);
    return button;
  }

  newest() {
    const names = [...this.entries.keys()];
    return names.find((name) => isResult(this.entries.get(name).artifact)) ?? names.at(-1);
  }

  current() {
    return this.chosen ?? this.newest();
  }

  async load(button) {
    this.sight.unobserve(button);
    const { artifact } = this.entries.get(button.dataset.name);
    const source = await pictureOf(artifact).catch(() => null);
    if (source) button.replaceChildren(el("img", { alt: "", src: source }));
  }

  async show(name) {
    const { artifact } = this.entries.get(name);
    const version = `${name} ${artifact.sha256}`;
    const source = await pictureOf(artifact).catch(() => null);
    if (!source || this.current() !== name || this.shown === version) return;
    const image = el("img", { alt: artifact.name, src: source, className: "coming" });
    await image.decode().catch(() => {});
    if (this.current() !== name) return;
    this.shown = version;
    if (Math.max(image.naturalWidth, image.naturalHeight) < SMALL_PX) image.classList.add("small");
    const before = [...this.canvas.children];
    this.canvas.append(image);
    requestAnimationFrame(() => requestAnimationFrame(() => image.classList.remove("coming")));
    // The old picture stays below until the new one covers it, so that one grows out of the other.
    setTimeout(() => before.forEach((old) => old.remove()), 800);
    this.caption.textContent = `${artifact.name} · ${image.naturalWidth} × ${image.naturalHeight} · ${bytes(artifact.bytes)}`;
    for (const [other, { button }] of this.entries) button.setAttribute("aria-pressed", String(other === name));
    const { button } = this.entries.get(name);
    this.strip.scrollTo({ left: button.offsetLeft - this.strip.clientWidth / 2, behavior: "smooth" });
  }
}
