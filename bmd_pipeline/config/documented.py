"""Models whose fields are described by the docstrings below them.

They are read when a description is asked for: pydantic's own `use_attribute_docstrings` reads them when a class is
made, which took a tenth of the start of every command and of every plan.
"""

import ast
import functools
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler


class Documented(BaseModel):
    """A model whose JSON Schema says what its fields mean."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in describe_fields(cls).items():
            properties[name]["description"] = text
        return schema


def describe_fields(model: type[BaseModel]) -> dict[str, str]:
    """What each field of a model means, by its name; fields without a docstring are left out."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, Documented):
            found |= _read_docstrings(part)
    return {name: text for name, text in found.items() if name in model.model_fields}


@functools.cache
def _read_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below a class's own fields; none where its source can't be found, as of a class made by a call."""
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
