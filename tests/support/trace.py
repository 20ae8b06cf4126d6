"""A readable record of a run of the model."""


class Trace:
    """A sequence diagram (Mermaid) of a run: for reading a counter-example or pasting it into an issue."""

    def __init__(self) -> None:
        self._actors: list[str] = []
        self._lines: list[str] = []

    def sends(self, sender: str, receiver: str, what: object) -> None:
        """Record that one party sends something to another."""
        for name in (sender, receiver):
            if name not in self._actors:
                self._actors.append(name)
        self._lines.append(f"{sender}->>{receiver}: {_plain(what)}")

    def notes(self, actor: str, what: object) -> None:
        """Record an event at one party."""
        if actor not in self._actors:
            self._actors.append(actor)
        self._lines.append(f"Note over {actor}: {_plain(what)}")

    def __len__(self) -> int:
        return len(self._lines)

    def __str__(self) -> str:
        actors = [f"participant {name}" for name in self._actors]
        return "\n    ".join(["sequenceDiagram", *actors, *self._lines])


def _plain(what: object) -> str:
    """Replace semicolons, which end a line in Mermaid, and line breaks."""
    return str(what).replace(";", ",").replace("\n", " ")
