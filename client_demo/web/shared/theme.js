// The theme, light or dark: the system's until a person presses the button, and then that person's, on every page.

const KEY = "theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // the browser may forbid storage
  }
}

function remember(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Without storage the choice is valid until the page is left.
  }
}

function isDark() {
  return (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
}

/** Return the colours with these names in the present theme, for drawing a map. */
export function coloursOf(names) {
  const probe = document.body.appendChild(document.createElement("i"));
  const colours = Object.fromEntries(
    names.map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color];
    }),
  );
  probe.remove();
  return colours;
}

/** Make `button` switch the theme; `changed` is called when the button or the system has changed the theme. */
export function themeButton(button, changed = () => {}) {
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    changed();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  button.setAttribute("aria-pressed", String(isDark()));
}

if (["light", "dark"].includes(remembered())) {
  root.dataset.theme = remembered();
}
