"""Facts with their sources: GPUs, models, roles, constants of the cost model."""

from fate_gym.catalog.loader import (
    GB,
    Execution,
    Gpu,
    Model,
    Own,
    execution,
    gpu,
    gpus,
    model,
    models,
    read_yaml,
)

__all__ = [
    "GB",
    "Execution",
    "Gpu",
    "Model",
    "Own",
    "execution",
    "gpu",
    "gpus",
    "model",
    "models",
    "read_yaml",
]
