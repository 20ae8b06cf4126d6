// The map's service worker, which shows alerts while no page of the map is open.

import { handle } from "/geocast/geocast-push-sw.js";

const token = async () => (await (await fetch("/view.json")).json()).token;

handle(self, { app: "/", icon: "/shared/icon.svg", token });
