"""What the key `model` means where it is the name of a trained model. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from volsam.config import Config
from volsam.errors import VolsamError


def resolve(config: Config, model: str | None = None) -> str:
    """A model as `volsam.models.load_model` takes it.

    The name of a trained model becomes the path of the version in use. Where none is in use yet and the
    configuration says how the model is trained, its parent stands for it.

    Parameters
    ----------
    config : Config
        With the folder of trained models.
    model : str, optional
        The key ``model`` by default.
    """
    from volsam.models.store import ModelStore

    model = config.model if model is None else model
    store = ModelStore(config.models)
    trained = (store.root / model / "promoted.json").is_file() if _is_name(model) else False
    if trained:
        return str(store.find(model))
    if config.train is not None and model == config.train.name:
        if config.train.parent == model:
            raise VolsamError(
                f"Model {model} has itself as train.parent and no version yet; name the model to "
                "start from."
            )
        return resolve(config, config.train.parent)
    if _is_name(model) and (store.root / model).is_dir():
        return str(store.find(model))  # says what is missing
    return model


def kept_in_models(config: Config) -> bool:
    """Whether the key `model` is the name of a model in the folder of trained models."""
    return _is_name(config.model) and (Path(config.models) / config.model).is_dir()


def described(config: Config, model: str | None = None) -> list[Path]:
    """Files and folders on this machine that a model consists of, for fingerprints; may be empty."""
    model = resolve(config, model)
    if model == "embedded":
        return [Path(__file__).parent / "embedded"]
    if model.startswith("predictions:"):
        return [Path(model.removeprefix("predictions:"))]
    files = [Path(part) for part in model.split("::")]
    # A description stands for the weights beside it.
    return [path.parent if path.suffix == ".json" else path for path in files if path.is_file()]


def _is_name(model: str) -> bool:
    return not {"/", "\\", ":"} & set(model) and not model.startswith(".")
