// Elements of a page. Texts are set as textContent, never as markup.

export const by = (id) => document.getElementById(id);

/** Return an element with a class and text or children. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Return an element with foreign text, whose direction is isolated from its surroundings. */
export function foreign(tag, text, className = "") {
  const element = make(tag, `foreign ${className}`, text);
  element.dir = "auto";
  return element;
}

/** The labels of alerts that are not actual. A Map, because an object would also find a status `constructor`. */
export const DRILLS = new Map([
  ["exercise", "Exercise"],
  ["test", "Test"],
]);

/** Return who is sent an exercise or a test, as a sentence; an empty text for an actual alert or call. */
export function drillNote(status, people) {
  return DRILLS.has(status) ? `${people} are sent this only if their token has the scope alerts:test.` : "";
}

/** Set an element's text only if it differs, because screen readers announce each text that is set. */
export function write(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * Make a list's items those of `entries`, [key, version, build, more], and return the new items. An item is built again
 * only when its version changes, and moved only when necessary, so that nobody loses the focus or a button that they are
 * about to press. `more`, which changes while people read, is written into the item's `.more`.
 */
export function arrange(list, entries) {
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const fresh = [];
  entries.forEach(([key, version, build, more], place) => {
    let item = known.get(key);
    known.delete(key);
    if (item?.dataset.version !== version) {
      const old = item;
      item = build();
      Object.assign(item.dataset, { key, version });
      replace(old, item);
      if (!old) {
        fresh.push(item);
      }
    }
    write(item.querySelector(".more"), more);
    if (list.children[place] !== item) {
      list.insertBefore(item, list.children[place] ?? null);
    }
  });
  known.forEach((item) => item.remove());
  return fresh;
}

function replace(old, item) {
  const hadFocus = old?.contains(document.activeElement);
  old?.replaceWith(item);
  if (hadFocus) {
    item.querySelector("button")?.focus();
  }
}
