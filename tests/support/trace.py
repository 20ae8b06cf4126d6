"""What happened in a run of the model, to be read."""


class Trace:
    """What happened, as a sequence diagram (Mermaid): to read a counter-example, or to paste it into an issue."""

    def __init__(self) -> None:
        self._actors: list[str] = []
        self._lines: list[str] = []

    def sends(self, sender: str, receiver: str, what: object) -> None:
        """One sends the other something."""
        for name in (sender, receiver):
            if name not in self._actors:
                self._actors.append(name)
        self._lines.append(f"{sender}->>{receiver}: {_plain(what)}")

    def notes(self, actor: str, what: object) -> None:
        """Something happens to one."""
        if actor not in self._actors:
            self._actors.append(actor)
        self._lines.append(f"Note over {actor}: {_plain(what)}")

    def __len__(self) -> int:
        return len(self._lines)

    def __str__(self) -> str:
        actors = [f"participant {name}" for name in self._actors]
        return "\n    ".join(["sequenceDiagram", *actors, *self._lines])


def _plain(what: object) -> str:
    """Mermaid takes a semicolon for the end of a line."""
    return str(what).replace(";", ",").replace("\n", " ")
