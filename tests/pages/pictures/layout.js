// Returns, as sentences, what is wrong with the layout of the page below `root`, and the boxes of the controls that can be seen.
(root) => {
  const LEAST_PX = 24; // of a control that can be pressed (WCAG 2.5.8)
  const wrong = [];
  const styleOf = (element) => getComputedStyle(element);
  const boxOf = (element) => element.getBoundingClientRect();
  const nameOf = (element) =>
    [element.tagName.toLowerCase(), element.id && `#${element.id}`, ...[...element.classList].map((each) => `.${each}`)].join("") +
    ` “${(element.innerText || element.ariaLabel || "").trim().replace(/\s+/g, " ").slice(0, 40)}”`;
  const canBeSeen = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
    !element.closest(".visually-hidden, [aria-hidden=true], .maplibregl-marker") &&
    [element, ...parents(element)].every((each) => boxOf(each).width > 1); // 1 px: for screen readers only
  const parents = (element) => (element.parentElement ? [element.parentElement, ...parents(element.parentElement)] : []);
  const scrolls = (value) => ["auto", "scroll"].includes(value);
  const clips = (value) => ["hidden", "clip"].includes(value);
  const isWord = (element) => element.matches("a") && styleOf(element).display === "inline"; // a link as part of a text
  const all = [...document.querySelector(root).querySelectorAll("*")].filter(canBeSeen);

  // The page itself does not scroll sideways.
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) {
    const widest = all.filter((each) => boxOf(each).right > innerWidth + 1 && !parents(each).some((up) => styleOf(up).overflowX !== "visible" && up !== document.body));
    wrong.push(`the page is ${wide} px wider than the screen: ${widest.slice(-3).map(nameOf).join(", ")}`);
  }

  // Nothing scrolls sideways, except code, tables and diagrams.
  for (const element of all.filter((each) => scrolls(styleOf(each).overflowX) && !each.matches("pre, textarea, .table-wrapper, .highlight"))) {
    const beyond = element.scrollWidth - element.clientWidth;
    if (beyond > 1) wrong.push(`${nameOf(element)} scrolls ${beyond} px sideways`);
  }

  // Text ends inside its own box, and inside the boxes that clip it, unless these scroll or show an ellipsis.
  for (const element of all) {
    for (const node of element.childNodes) {
      if (node.nodeType !== Node.TEXT_NODE || !node.data.trim()) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const text = range.getBoundingClientRect();
      const own = boxOf(element);
      const { display, overflowX: ownX } = styleOf(element);
      if (display !== "inline" && ownX === "visible" && (text.right > own.right + 1 || text.left < own.left - 1)) wrong.push(`${nameOf(element)} runs out of its box`);
      let [isDoneX, isDoneY] = [false, false];
      for (const up of [element, ...parents(element)]) {
        const { overflowX, overflowY, textOverflow, position } = styleOf(up);
        const box = boxOf(up);
        isDoneX ||= scrolls(overflowX) || textOverflow === "ellipsis";
        isDoneY ||= scrolls(overflowY);
        if (!isDoneX && clips(overflowX) && (text.right > box.right + 1 || text.left < box.left - 1)) wrong.push(`${nameOf(element)} is cut at the side by ${nameOf(up)}`);
        if (!isDoneY && clips(overflowY) && (text.bottom > box.bottom + 2 || text.top < box.top - 2)) wrong.push(`${nameOf(element)} is cut below by ${nameOf(up)}`);
        if (position === "fixed") break;
      }
      if (!isDoneX && (text.right > innerWidth + 1 || text.left < -1)) wrong.push(`${nameOf(element)} runs out of the screen`);
    }
  }

  // Controls are large enough, inside the screen's width, and not covered by anything else.
  const controls = all.filter((each) => each.matches("button, a[href], input, select, textarea, summary, [role=switch], [role=button]"));
  const boxes = [];
  for (const control of controls) {
    const labels = control.matches("[type=checkbox], [type=radio]") ? [...control.labels] : [];
    const box = [control, ...labels].map(boxOf).reduce((a, b) => ({
      left: Math.min(a.left, b.left), right: Math.max(a.right, b.right), top: Math.min(a.top, b.top), bottom: Math.max(a.bottom, b.bottom) }));
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    if (!isWord(control) && Math.min(width, height) < LEAST_PX - 0.5) wrong.push(`${nameOf(control)} is only ${Math.round(width)} × ${Math.round(height)} px`);
    if ((box.left < -1 || box.right > innerWidth + 1) && !parents(control).some((up) => scrolls(styleOf(up).overflowX))) wrong.push(`${nameOf(control)} is partly beside the screen`);
    const own = boxOf(control);
    const [x, y] = [own.left + own.width / 2, own.top + own.height / 2];
    const isInside = [...parents(control), document.documentElement].every((up) => {
      const { left, right, top, bottom } = up === document.documentElement ? { left: 0, right: innerWidth, top: 0, bottom: innerHeight } : boxOf(up);
      return up === document.body || styleOf(up).overflow === "visible" || (x > left && x < right && y > top && y < bottom);
    });
    if (!isInside || x < 0 || y < 0 || x > innerWidth || y > innerHeight) continue;
    const above = document.elementFromPoint(x, y);
    if (above && !control.contains(above) && !above.contains(control) && !labels.some((each) => each.contains(above))) wrong.push(`${nameOf(control)} is covered by ${nameOf(above)}`);
    else if (!control.disabled && !isWord(control)) boxes.push([nameOf(control), own.left, own.top + scrollY, own.right, own.bottom + scrollY]);
  }
  return { wrong: [...new Set(wrong)], boxes };
}
