"""Base class and field types shared by all settings.

What is not learned (the data distribution, the noise schedule, a regularizer) is a small immutable pydantic model with
its behaviour on it. Its fields are the keys of the YAML files, so a mistake there is found before anything runs.
"""

from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
SetSize = Annotated[int, Field(ge=1, le=10**7)]  # above, a training set alone would fill the memory
LayerSize = Annotated[int, Field(ge=1, le=4096)]  # of a network; 100 such layers are 7 GB
Width = Annotated[float, Field(ge=1e-12, le=100)]  # of a distribution on the cell; its square has to be a float32


class Settings(BaseModel):
    """Base of all settings: frozen, strict about types, finite numbers only, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class AnySubclass:
    """Metadata of a field: its value is any subclass of the annotated class, chosen by the key `type`. So a new one
    is known as soon as it is defined. `default` is the type of a block that names none."""

    def __init__(self, default: str | None = None):
        self.default = default

    def __get_pydantic_core_schema__(self, source: type[Settings], handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds = [source]
        for kind in kinds:  # the list grows meanwhile
            kinds += kind.__subclasses__()
        names = {kind: get_args(kind.model_fields["type"].annotation) for kind in kinds if "type" in kind.model_fields}
        choices = {name[0]: handler.generate_schema(kind) for kind, name in names.items() if name}
        union = core_schema.tagged_union_schema(choices, discriminator="type")
        named = {"type": self.default} if self.default else {}
        return core_schema.no_info_before_validator_function(lambda b: named | b if isinstance(b, dict) else b, union)
