// The page's side of the service behind it, where people sign in: the form for the key, requests, and events.
//
//   const service = new ServiceClient({ main: "desk", question: "…", hint: "…", listen: (on) => on("all", take), silence: "…" });
//   service.open(); // with the key in the address, which is then removed from it, or as the person who is signed in

import { by, make } from "/shared/elements.js";

const ASK_MS = 20_000;

export class ServiceClient {
  /**
   * `main` is the id of the element that is shown to people who are signed in; the others see a form with `question` and
   * `hint`. `listen(on)` calls on(event, act) for each event of the service. `silence` is shown when the service gives no
   * answer. `left` is called when somebody has signed out.
   */
  constructor({ main, question, hint, listen, silence, left = () => this._askForKey() }) {
    by(main).before(signInForm(question, hint));
    this._main = main;
    this._listen = listen;
    this._silence = silence;
    this._events = null;
    this.post = this.post.bind(this);
    by("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this._signIn(by("key").value);
    });
    by("sign-out").addEventListener("click", async () => {
      await this.post("/api/sign-out", {});
      left();
    });
  }

  open() {
    const key = new URLSearchParams(location.hash.slice(1)).get("key");
    if (key) {
      history.replaceState(null, "", location.pathname); // so that no address with a key stays in the history
      this._signIn(key);
    } else {
      this._follow();
    }
  }

  /** Return the answer to a POST: its status, its body, and the problem in words, if there is one. */
  async post(path, body) {
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(ASK_MS),
      });
      const answer = await response.json();
      if (response.status === 401 && path !== "/api/sign-in") {
        this._askForKey();
      }
      return { status: response.status, body: answer, problem: response.ok ? "" : (answer.detail ?? "") };
    } catch {
      return { status: 0, body: null, problem: this._silence };
    }
  }

  /** Show the state of the connection to the service: `state` for its look, `text` for people. */
  connection(state, text) {
    by("connection").dataset.state = state;
    by("connection").textContent = text;
  }

  /** Show the page to a person who is signed in. */
  signedIn(name) {
    by("me").textContent = name;
    by(this._main).hidden = by("signed-in").hidden = false;
  }

  /** Show a warning above the page; "" removes it. */
  warn(text) {
    by("warning").textContent = text;
    by("warning").hidden = !text;
  }

  _follow() {
    this._events?.close();
    const events = (this._events = new EventSource("/api/events"));
    this._listen((name, act) => events.addEventListener(name, ({ data }) => act(JSON.parse(data))));
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) {
        this._askForKey();
      } else {
        this.connection("offline", "Connection lost");
        this.warn("This page has lost its service. What it shows may be old.");
      }
    };
  }

  _askForKey() {
    this._events?.close();
    by(this._main).hidden = true;
    by("signed-in").hidden = true;
    by("sign-in").hidden = false;
    this.connection("connecting", "Not signed in");
    by("key").focus();
  }

  async _signIn(key) {
    const { body, problem } = await this.post("/api/sign-in", { key });
    by("key-refusal").textContent = problem;
    if (body?.name) {
      by("sign-in").hidden = true;
      by("key").value = "";
      this._follow();
    } else {
      this._askForKey();
    }
  }
}

/** Return the form that asks for a key; it is hidden until somebody has to sign in. */
function signInForm(question, hint) {
  const label = Object.assign(make("label", "", "Key"), { htmlFor: "key" });
  const key = Object.assign(make("input"), { id: "key", type: "password", autocomplete: "off", required: true });
  const refusal = Object.assign(make("p", "refusal"), { id: "key-refusal" });
  key.setAttribute("aria-describedby", refusal.id);
  refusal.setAttribute("role", "alert");
  const parts = [make("h2", "", question), make("p", "", hint), make("div", "", label, key, refusal)];
  const form = make("form", "panel stack", ...parts, make("button", "button-primary", "Sign in"));
  Object.assign(form, { id: "sign-in-form", autocomplete: "off" });
  return Object.assign(make("main", "sign-in", form), { id: "sign-in", hidden: true });
}
