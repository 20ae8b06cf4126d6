// The page's side of the service behind it, where people sign in: the form for the key, requests, and events.
//
//   const service = new ServiceClient({ main: "desk", listen: (on) => on("all", take), silence: "…" });
//   service.open(); // by the key in the address, which goes from there, or as who is signed in already

const ASK_MS = 20_000;
const by = (id) => document.getElementById(id);

export class ServiceClient {
  /**
   * `main` is the id of what is for those who are signed in. `listen(on)` says, by on(event, act), what is done with which
   * event. `silence` is said where the service gives no answer. `left` is called when somebody has signed out.
   */
  constructor({ main, listen, silence, left = () => this._askForKey() }) {
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
      history.replaceState(null, "", location.pathname); // the address must not stay in the history with the key in it
      this._signIn(key);
    } else {
      this._follow();
    }
  }

  /** The answer to a POST: its status and body, and the problem in words, if there is one. */
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

  /** Show how the page stands with the service: `state` for its look, `text` for people. */
  connection(state, text) {
    by("connection").dataset.state = state;
    by("connection").textContent = text;
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
