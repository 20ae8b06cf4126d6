// The form of a call, with the reasons against it beside their fields.

import { by, drillNote, make } from "/shared/elements.js";

const TEXTS = ["category", "status", "headline", "address", "access", "callback_phone"];
const NUMBERS = ["lat", "lng"];
const FIELDS = ["status", "headline", "kind", "address", "access", "callback_phone", "place", "reason"];

const form = () => by("form");

/** Fill in the form. `categories` are those of the policy; `isNew` means that the call is not open yet. */
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
  const note = () => (by("status-note").textContent = drillNote(elements.status.value, "Responders"));
  elements.status.onchange = note;
  note();
  by("send").textContent = isNew ? "Call responders" : "Send the correction";
  clear();
}

/** Return the content of the form. */
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

/** Move the place. */
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

/** Show the reasons against the call, and go to the first of them. */
export function refuse(troubles) {
  clear();
  for (const { field, text } of troubles) {
    const at = by(`${field}-refusal`) ?? by("problem");
    at.textContent = [at.textContent, text].filter(Boolean).join(" ");
    document.querySelectorAll(`[aria-describedby~="${field}-refusal"]`).forEach((each) => each.setAttribute("aria-invalid", "true"));
  }
  document.querySelector('#form [aria-invalid="true"]:is(input, select, textarea), #form [aria-invalid="true"] input')?.focus();
}
