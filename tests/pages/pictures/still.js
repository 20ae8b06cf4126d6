// Scrolls to the top, and replaces digits and dates in the page's texts, because times differ from run to run. What the page
// writes until `pictured()` is called is replaced too, before it is drawn, and the page's maps keep their size until then.
() => {
  scrollTo(0, 0);
  const MONTH = /\b(?:\d{1,2} )?(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b(?= \d|$)/g;
  const FEW_SECONDS = /(?<!\d)\d(?= s\b)/g; // get two digits, because a countdown has one or two
  const still = () => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode;
      const same = text.data.replace(MONTH, "00 Jan").replace(FEW_SECONDS, "00").replace(/\d/g, "0");
      if (same !== text.data && !text.parentElement.closest("script, style, textarea")) text.data = same;
    }
  };
  still();
  const written = new MutationObserver(still);
  written.observe(document.body, { subtree: true, childList: true, characterData: true });
  globalThis.isPictured = true;
  globalThis.pictured = () => {
    written.disconnect();
    globalThis.isPictured = false;
  };
}
