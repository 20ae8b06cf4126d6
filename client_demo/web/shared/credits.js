// Who made what a map is drawn on. A style with streets says so for each of its sources, as markup; here it becomes text
// and links.

import { make } from "/shared/elements.js";

/** The credits of a map's sources, as nodes. */
export function creditsOf(map) {
  const { sources } = map.getStyle();
  const said = Object.keys(sources).map((name) => map.getSource(name).attribution);
  return [...new Set(said.filter(Boolean))].flatMap((html) => [...linksOf(html), " · "]);
}

/**
 * An attribution as text and links. MapLibre's own control makes markup of it, which this page's policy forbids. It is cut
 * at its tags, each of which is as short as one can be: a text of others must not take the square of its length.
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
