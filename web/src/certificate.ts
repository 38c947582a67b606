/** The certificate: verdict, scores before and after, all measurements. */

import type { Change, State } from "./api";
import { button, card, h, icon } from "./dom";

/** Shows input and output on the line from reference to source. */
function meter(name: string, change: Change): HTMLElement {
  const text = `${name}: ${change.before.toFixed(2)} before, ${change.after.toFixed(2)} after; 0 is the reference, 1 the source`;
  const before = h("i", { class: "dot before" });
  const after = h("i", { class: "dot after" });
  const path = h("i", { class: "path" });
  before.style.left = `${change.before * 100}%`;
  after.style.left = `${change.after * 100}%`;
  path.style.left = `${Math.min(change.before, change.after) * 100}%`;
  path.style.width = `${Math.abs(change.before - change.after) * 100}%`;
  return h(
    "div",
    { class: "meter", role: "img", "aria-label": text },
    h("span", { class: "name" }, name),
    h("div", { class: "track" }, path, before, after),
    h("span", { class: "figure" }, `${change.before.toFixed(2)} → ${change.after.toFixed(2)}`),
  );
}

const SIGNS: Record<string, string> = { good: "check", caution: "warn", refused: "warn", plain: "info" };

export class CertificateCard {
  readonly element: HTMLElement;
  private slot = h("div", { class: "certificate" });
  private details = h("details", { hidden: true }, h("summary", {}, "All measurements"));
  private statements = h("ul", { class: "statements" });
  private anyway: HTMLButtonElement;
  private verdict = "";

  constructor(anyway: () => void) {
    this.anyway = button("Enhance anyway", null, anyway, { hidden: true });
    this.details.append(this.statements);
    this.element = card("Certificate", this.slot, this.anyway, this.details);
  }

  show({ certificate, lost, model }: State): void {
    this.details.hidden = !certificate;
    this.anyway.hidden = certificate?.verdict !== "refused";
    if (!certificate) {
      this.verdict = "";
      const text = "After the enhancement, this shows how reliable the change is, and why.";
      this.slot.replaceChildren(h("p", { class: "quiet" }, text));
      return;
    }
    const { heading, scorer, judge, verdict } = certificate;
    this.slot.replaceChildren(
      h(
        "div",
        { class: `verdict ${verdict}` },
        icon(SIGNS[heading.kind]),
        h("div", {}, h("strong", {}, heading.title), h("p", {}, heading.text)),
      ),
      h(
        "div",
        { class: "meters" },
        h("div", { class: "ends" }, h("span", {}, "reference"), h("span", {}, "source")),
        meter("Scorer", scorer),
        judge && meter("Judge", judge),
      ),
      ...(lost ? [h("p", { class: "quiet" }, `The model of this mask, ${model}, does not exist any more: your changes are checked with another one.`)] : []),
      ...(certificate.current ? [] : [h("p", { class: "quiet" }, "For the mask without your changes; the changes are being checked …")]),
    );
    this.statements.replaceChildren(
      ...certificate.statements.map((it) =>
        h("li", { class: it.kind }, icon(SIGNS[it.kind]), h("div", {}, h("strong", {}, it.title), h("p", {}, it.text))),
      ),
    );
    // A caution is open at first; if the user closed it, it stays closed for the same verdict.
    if (verdict !== this.verdict) this.details.open = verdict !== "good" && verdict !== "unneeded";
    this.verdict = verdict;
  }
}
