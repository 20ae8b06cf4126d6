// Elements of a page. Text is text: it goes in as textContent does, never as markup.

/** An element with a class and text or children. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Text of others, on its own whatever direction it has. */
export function foreign(tag, text, className = "") {
  const element = make(tag, `foreign ${className}`, text);
  element.dir = "auto";
  return element;
}

/** What an alert is that is none for real. A Map: an object would know a status `constructor`, too. */
export const DRILLS = new Map([
  ["exercise", "Exercise"],
  ["test", "Test"],
]);
