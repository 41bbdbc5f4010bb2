"""The base of models that go unchanged from their source to HTTP and `--json`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from webp_converter.base.docstrings import attribute_docstrings


class Fact(BaseModel):
    """What all facts share. Paths in them are text: bytes that aren't UTF-8 are surrogates, as in Python."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The fields' docstrings are their descriptions, in `/openapi.json` as well."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in attribute_docstrings(cls).items():
            field = properties.get(cls.model_fields[name].serialization_alias or name)
            if field is not None:  # None: it is kept out of answers
                field.setdefault("description", text)
        return schema
