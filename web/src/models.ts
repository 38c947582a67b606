/** The choice of the model for the next search. */

import { get, put, trying, type ModelCard, type Session } from "./api";
import { h, say } from "./dom";

export function modelChoice(session: Session, chosen: () => void): HTMLElement {
  const select = h("select", { "aria-label": "Model" }, h("option", {}, session.model));
  let models: ModelCard[] = [];
  void trying(() => get<ModelCard[]>("/models")).then((told = []) => {
    models = told;
    select.replaceChildren(
      ...models.map((model) =>
        h("option", { value: model.name, selected: model.name === session.model, title: model.domain ?? "" }, model.name),
      ),
    );
  });
  const choose = async () => {
    const told = await put<Session>(`/sessions/${session.id}/model`, { model: select.value });
    session.model = told.model;
    session.saliency = told.saliency;
    const domain = models.find((model) => model.name === told.model)?.domain;
    say(`The next search uses ${told.model}${domain ? `: ${domain}` : ""}.`);
    chosen();
  };
  select.addEventListener("change", () => void trying(choose).then(() => (select.value = session.model)));
  return select;
}
