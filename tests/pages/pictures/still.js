// Scrolls to the top, and replaces digits and dates in the page's texts, because times differ from run to run.
() => {
  scrollTo(0, 0);
  const MONTH = /\b(?:\d{1,2} )?(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b(?= \d|$)/g;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    const still = text.data.replace(MONTH, "00 Jan").replace(/\d/g, "0");
    if (still !== text.data && !text.parentElement.closest("script, style, textarea")) text.data = still;
  }
}
