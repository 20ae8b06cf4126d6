// The form of a call: what it says, and what stands in its way, each beside its field.

import { by, make } from "/shared/elements.js";

const TEXTS = ["category", "status", "headline", "address", "access"];
const NUMBERS = ["lat", "lng"];
const FIELDS = ["status", "headline", "kind", "address", "access", "place", "reason"];

const form = () => by("form");

/** Fill it in. `categories` are those of the policy, `isNew` says whether nothing of it is fixed yet. */
export function fill(values, categories, isNew) {
  const { elements } = form();
  elements.category.replaceChildren(...Object.entries(categories).map(([key, title]) => Object.assign(make("option", "", title), { value: key })));
  TEXTS.forEach((name) => (elements[name].value = values[name] ?? ""));
  NUMBERS.forEach((name) => (elements[name].value = values[name] ?? ""));
  form().querySelectorAll("[name=kind]").forEach((each) => {
    each.checked = each.value === values.kind;
    each.disabled = !isNew;
  });
  elements.category.disabled = elements.status.disabled = !isNew;
  by("send").textContent = isNew ? "Call responders" : "Send the correction";
  clear();
}

/** What it says. */
export function read() {
  const { elements } = form();
  const texts = Object.fromEntries(TEXTS.map((name) => [name, elements[name].value]));
  const numbers = Object.fromEntries(NUMBERS.map((name) => [name, numberOf(elements[name].value)]));
  return { ...texts, ...numbers, kind: form().querySelector("[name=kind]:checked")?.value ?? "" };
}

function numberOf(text) {
  const number = Number(text.trim().replace(",", "."));
  return text.trim() && Number.isFinite(number) ? number : null;
}

/** Put the place somewhere else. */
export function place({ lat, lng }) {
  const { elements } = form();
  elements.lat.value = lat.toFixed(6);
  elements.lng.value = lng.toFixed(6);
}

export function clear() {
  FIELDS.forEach((name) => (by(`${name}-refusal`).textContent = ""));
  by("problem").textContent = "";
  form().querySelectorAll("[aria-invalid]").forEach((each) => each.removeAttribute("aria-invalid"));
}

/** Say what stands in the way, and go to the first of it. */
export function refuse(troubles) {
  clear();
  for (const { field, text } of troubles) {
    const at = by(`${field}-refusal`) ?? by("problem");
    at.textContent = [at.textContent, text].filter(Boolean).join(" ");
    document.querySelectorAll(`[aria-describedby~="${field}-refusal"]`).forEach((each) => each.setAttribute("aria-invalid", "true"));
  }
  document.querySelector('#form [aria-invalid="true"]:is(input, select, textarea), #form [aria-invalid="true"] input')?.focus();
}
