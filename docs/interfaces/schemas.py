"""The JSON Schemas in both documents, made from the models and types of the server."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, TupleSchema, WithDefaultSchema

REF = "#/components/schemas/{model}"


class Schemas(GenerateJsonSchema):
    """Generates JSON Schemas that match our strict parser and have no redundant keywords.

    - Defaults are omitted: in our models a default only says that the client did not send the field.
    - A map whose keys must match a pattern accepts no other keys, so its schema is closed.
    - A pair of numbers also has `items`, for readers that do not know `prefixItems` (Draft 7 has no such keyword).
    - Fields get no title, because their names are clear enough.

    The results are valid in JSON Schema Draft 7 and 2020-12.
    """

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        if "patternProperties" in found:
            found.pop("propertyNames", None)
            found["additionalProperties"] = False
        return found

    def tuple_schema(self, schema: TupleSchema) -> JsonSchemaValue:
        found = super().tuple_schema(schema)
        types = {each.get("type") for each in found.get("prefixItems", ())}
        return found | ({"items": {"type": "number"}} if types == {"number"} else {})

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        return False


def schemas_of(*models: type) -> dict[str, Any]:
    """Return the JSON Schemas of these models, as a dict from model name to schema.

    Models that these contain are included.
    """
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (model.__name__, "validation", TypeAdapter(model)) for model in models
    ]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=REF, schema_generator=Schemas)
    found: dict[str, Any] = schemas["$defs"]
    return found
