/**
 * The coarse cells that a server may know about a sleeping phone (WPR2).
 */

/** @import { H3, Place } from "./geocast.js" */
/** @import { Spot } from "./geo.js" */

import { cellSpot, spotOf } from "./geo.js";
import { cellAround } from "./position.js";

export const COARSEST = 5;
export const FINEST = 9;

/** @param {string} cell */
const resolutionOf = (cell) => parseInt(cell.charAt(1), 16);

/**
 * Return the cell of this resolution that contains a finer cell; a coarser cell is returned unchanged. In H3's bits this
 * sets the resolution, and a 7 for each unused digit.
 * @param {string} cell @param {number} resolution @returns {string}
 */
export function coarsened(cell, resolution) {
  if (resolutionOf(cell) <= resolution) return cell;
  const unused = (1n << BigInt(3 * (15 - resolution))) - 1n;
  const bits = BigInt(`0x${cell}`) & ~(0xfn << 52n);
  return (bits | (BigInt(resolution) << 52n) | unused).toString(16);
}

/**
 * Return a place as the cell that the server gets. Throws TypeError, which never repeats a value.
 * @param {Place} place @param {H3 | undefined} h3 @param {number} resolution of the cell of a point @param {string} name
 * @returns {string} a cell of resolution 5 to 9
 */
export function cellOf(place, h3, resolution, name) {
  if (place !== null && typeof place === "object" && "cell" in place) {
    const { cell } = place;
    const isCell = typeof cell === "string" && /^8[5-9a-f][0-9a-f]{13}$/i.test(cell) && (!h3 || h3.isValidCell(cell));
    if (!isCell) throw new TypeError(`${name}.cell: expected an H3 cell of resolution ${COARSEST} or finer`);
    return coarsened(cell.toLowerCase(), FINEST);
  }
  const spot = spotOf(place, h3, name);
  if (!h3?.latLngToCell) throw new TypeError(`${name}: a point needs the option h3 (import * as h3 from "h3-js")`);
  return /** @type {{ cell: string }} */ (cellAround(spot, h3, resolution, COARSEST).wire).cell;
}

/**
 * Return the position of a place, as finely as this device knows it; null for a cell without h3.
 * @param {Place} place @param {H3 | undefined} h3 @param {string} name @returns {Spot | null}
 */
export function exactly(place, h3, name) {
  if ("cell" in place) return h3 ? cellSpot(place.cell, h3, name, COARSEST) : null;
  return spotOf(place, h3, name);
}
