"""The table `[test]` of a policy: the texts of own tests (rule TR2)."""

from typing import Annotated

from pydantic import BaseModel, Field

from ..wire.fields import Description, Headline
from .cap import STRICT


class OwnTestText(BaseModel):
    """The category and the texts of the test alerts that subscribers ask for.

    If `category` is missing, it is the first category of the policy.
    """

    model_config = STRICT

    category: str | None = None
    headline: Headline = "This is a test: alerts reach you here. You need not do anything."
    description: Annotated[Description, Field(min_length=1)] | None = None
