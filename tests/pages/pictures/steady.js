// Runs before the page's own scripts. To take a picture of a whole page, Chromium may resize the page for a moment. Maps must
// not follow, because they would get their size back only after the picture.
globalThis.ResizeObserver = class extends ResizeObserver {
  constructor(act) {
    super((...seen) => globalThis.isPictured || act(...seen));
  }
};
