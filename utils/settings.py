"""The ground that every settings object stands on.

Whatever is not learned (the data law, the noise schedule, a regularizer) is a small immutable pydantic model with its
behaviour on it. The keys of the YAML files are the fields of these models, so an unknown key or a value of the wrong
type is found before anything runs.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
SetSize = Annotated[int, Field(ge=1, le=10**7)]  # above, a training set alone would fill the memory
LayerSize = Annotated[int, Field(ge=1, le=4096)]  # of a network; 100 such layers are 7 GB
Width = Annotated[float, Field(ge=1e-12, le=100)]  # of a law on the cell; its square has to be a float32


class Settings(BaseModel):
    """Base of all settings: frozen, strict about types, finite numbers only, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
