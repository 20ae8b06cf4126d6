// The credits of a map. A style with streets has markup for each of its sources, which is turned into text and links here.

import { make } from "/shared/elements.js";

/** Return the credits of a map's sources as nodes. */
export function creditsOf(map) {
  const { sources } = map.getStyle();
  const said = Object.keys(sources).map((name) => map.getSource(name).attribution);
  return [...new Set(said.filter(Boolean))].flatMap((html) => [...linksOf(html), " · "]);
}

/**
 * Return an attribution as text and links. MapLibre's own control uses markup, which this page's policy forbids. The text
 * is split at its shortest possible tags, so that a foreign text takes no time quadratic in its length.
 */
function linksOf(html) {
  const [first, ...parts] = html.split("<");
  const out = [plain(first)];
  let link = null;
  for (const part of parts) {
    const end = part.indexOf(">");
    const [tag, text] = end < 0 ? ["", `<${part}`] : [part.slice(0, end), part.slice(end + 1)];
    const href = /^a\s(?:.{0,200}\s)?href=["']?(https:[^"'\s]{1,2000})/is.exec(tag)?.[1];
    if (href || /^\/a\s{0,9}$/i.test(tag)) {
      link = href ? Object.assign(make("a"), { href, rel: "noopener" }) : null;
      out.push(...(link ? [link] : []));
    }
    link ? link.append(plain(text)) : out.push(plain(text));
  }
  return out;
}

const plain = (text) => text.replaceAll("&copy;", "©").replaceAll("&amp;", "&");
