/** The certificate: verdict, scores before and after, all measurements. */

import type { Change, State } from "./api";
import { button, card, h, icon } from "./dom";

/** Shows input and output on the line from reference to source. */
function meter(name: string, change: Change, unchanged: boolean): HTMLElement {
  const figure = unchanged ? change.before.toFixed(2) : `${change.before.toFixed(2)} → ${change.after.toFixed(2)}`;
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
    h("span", { class: "figure" }, figure),
  );
}

const SIGNS: Record<string, string> = { good: "check", caution: "warn", refused: "warn", plain: "info", none: "dash" };
const COLOURS: Record<string, string> = { good: "good", caution: "limited", refused: "refused", plain: "neutral" };

export class CertificateCard {
  readonly element: HTMLElement;
  private slot = h("div", { class: "certificate" });
  private details = h("details", { hidden: true }, h("summary", {}, "Checks"));
  private statements = h("ul", { class: "statements" });
  private anyway: HTMLButtonElement;
  private verdict = "";

  constructor(anyway: () => void) {
    this.anyway = button("Enhance anyway", null, anyway, { hidden: true });
    this.details.append(this.statements);
    this.element = card("Certificate", this.slot, this.anyway, this.details);
  }

  show({ certificate, lost, model }: State, chosen: string): void {
    this.details.hidden = !certificate;
    // A change that was made against advice needs no second offer.
    const spared = certificate?.verdict === "refused" || certificate?.verdict === "unneeded";
    this.anyway.hidden = !spared || certificate.treatment === "moving";
    if (!certificate) {
      this.verdict = "";
      const text = "After the search, this shows whether you can trust the change, and why.";
      this.slot.replaceChildren(h("p", { class: "quiet" }, text));
      return;
    }
    const { heading, scorer, judge, verdict, size } = certificate;
    const unchanged = certificate.treatment === "unchanged";
    const parts: (HTMLElement | null | "")[] = [
      h(
        "div",
        { class: `verdict ${COLOURS[heading.kind]}`, "data-verdict": verdict },
        icon(SIGNS[heading.kind]),
        h("div", {}, h("strong", {}, heading.title), h("p", { class: "size" }, size), h("p", {}, heading.text)),
      ),
      model && h("p", { class: "quiet found-with" }, `Found with ${model}${model === chosen ? "" : `; the next search uses ${chosen}`}.`),
      h(
        "div",
        { class: "meters" },
        h("div", { class: "ends" }, h("span", {}, "reference"), h("span", {}, "source")),
        meter("Match score", scorer, unchanged),
        judge && meter("Second opinion", judge, unchanged),
      ),
      lost ? h("p", { class: "quiet" }, `The model ${model} does not exist any more: your changes are checked with another one.`) : null,
      certificate.current ? null : h("p", { class: "quiet rechecking" }, "These results are for the version before your edits. Rechecking …"),
    ];
    this.slot.replaceChildren(...parts.filter((part): part is HTMLElement => part instanceof HTMLElement));
    this.statements.replaceChildren(
      ...certificate.statements.map((it) =>
        h("li", { class: it.kind }, icon(SIGNS[it.kind]), h("div", {}, h("strong", {}, it.title), h("p", {}, it.text))),
      ),
    );
    // A caution is open at first; if the user closed it, it stays closed for the same verdict.
    if (verdict !== this.verdict) this.details.open = verdict === "limited";
    this.verdict = verdict;
  }
}
