"""`geocast relay`: a signed webhook for each alert, to the systems that people run: sirens, signs, chat rooms.

A *target* is the address of such a system, with a table in the file of `--targets`. The relay follows the log, and
posts an *event* to a target for what happens to an alert. An event has one of four types: `alert.accepted`,
`alert.revised`, `alert.cancelled` and `alert.ended`. A target has been *told* an alert when it has perhaps received an
event about it: it answered, or it may have received the request although no answer came. It has *taken* an event when
it answered with a status from 200 to 299.

    WH1   A target may ask for categories, a least severity, statuses and a polygon. It is told the alerts that match
          all of them. If it doesn't ask for statuses, it is told only alerts with the status `actual`, because no siren
          may sound for a test. After a target was told an alert, it gets every later event of it. `matches` says
          whether the newest revision still matches.
          Example: revision 2 moves the area away from the siren's polygon. The siren gets `alert.revised` with
          `matches: false`, and stops.
    WH2   At least once: each event is posted until the target takes it, or until WH5 ends that. A repeated event has
          the same `webhook-id` and the same body, even after the relay was killed, or if its state was lost.
    WH3   In order: there is one request at a time for a target and an alert, and none for an earlier entry after one
          for a later entry. The first event that a target takes is `alert.accepted`, whatever the number of the
          revision. When a request has failed and a newer entry of the alert exists, the older one is not posted again:
          what it says is no longer true.
          Example: revision 1 fails with 500, and revisions 2 and 3 arrive meanwhile. The target gets `alert.accepted`
          with revision 3.
    WH4   When an alert has ended or was cancelled, no `alert.accepted` and no `alert.revised` is sent any more. The
          target gets `alert.cancelled` or `alert.ended` instead if it was told the alert, and otherwise nothing.
          `alert.ended` is sent when the alert is over for good, not while only the wall clock says so.
    WH5   A target that fails is tried again: after 1, 2, 4 … 30 s, ± 50 %, or as long as `Retry-After` asks for (up to
          10 minutes), until an hour after the end of the alert. It holds up no other target, because each target has
          connections and requests of its own. While a target fails, one request at a time tests it. An alert that a
          target refuses (a status from 300 to 499, except 408, 425 and 429) holds up no other alert.
    WH6   Before a target is told an alert for the first time, the state on the disk says that it may have been told.
          So a cancel reaches every target that was told, whenever the relay was killed. If the state can't be written,
          or not within a second, the events are sent nevertheless; `/readyz` and a metric say so.
    WH7   A target's URL has https, and its host global IP addresses. `allow_http` and `allow_private` lift this for one
          target. The connection goes to an address that was checked. Redirects are not followed.
    WH8   Secrets, header fields and URLs that are secret stand in files of their own. Log lines, errors and metrics
          name a target by its name, and never show a URL or a secret.
    WH9   Events are signed as Standard Webhooks 1.0 asks: by HMAC (`v1`), by Ed25519 (`v1a`), or both. With several
          secrets, each signs, so that a secret can be replaced without a gap.
    WH10  A target that answers 410 is told nothing more until the operator reloads the targets or changes its URL. The
          state remembers this, and a metric says so.
    WH11  A reload (SIGHUP) applies the whole file or nothing. A target that is new, or that asks for more, is told the
          live alerts that match.

targets, region      the file of targets, and which alerts a target wants
signing              the signatures
events               what an event says, and its id
told                 what each target was told, in a SQLite file
line                 what one target still has to be sent, and the requests to it
relaying             from the entries of the log to the lines of all targets
"""
