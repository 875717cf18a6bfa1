"""Small networks of both families: in torch, in ours with the same weights, and texts for them."""

import json

import jax
import numpy as np
from network_checks import FAST_TO_COMPILE
from others import others

from jaxtickets.models import TransformerConfig

CONFIGS = {
    "bert": TransformerConfig(
        vocabulary=60,
        layers=3,
        width=24,
        heads=4,
        intermediate=40,
        positions=18,
        token_types=3,
        padding=0,
        eps=1e-7,
        dropout=0.2,
    ),
    "roberta": TransformerConfig(
        "roberta",
        vocabulary=50,
        layers=2,
        width=18,
        heads=3,
        intermediate=30,
        positions=20,
        token_types=2,
        padding=4,
        eps=1e-5,
    ),
}
LENGTHS = (9, 4, 12, 1)
CLOSE = {
    "rtol": 1e-5,
    "atol": 1e-5,
}  # numbers of order 1 through some ten float32 layers, which round to 6e-8 of their largest term


def texts(config, tokens=12, seed=0, types=True):
    """Four texts of different lengths, filled up with padding."""
    draw = np.random.default_rng(seed)
    longest = max(LENGTHS)
    ids = draw.integers(5, config.vocabulary, (len(LENGTHS), longest))
    segments = draw.integers(0, config.token_types, (len(LENGTHS), longest))
    attended = np.arange(tokens)[None] < np.array(LENGTHS)[:, None]
    wide = [(0, 0), (0, tokens - longest)]
    x = {
        "input_ids": np.where(attended, np.pad(ids, wide), config.padding).astype(np.uint16),
        "attention_mask": attended.astype(np.int8),
    }
    return x | (
        {"token_type_ids": (np.pad(segments, wide) * attended).astype(np.int64)} if types else {}
    )


def torch_network(kind, config, outputs=3):
    """transformers' model `kind` ("Model", "ForSequenceClassification", ...), every weight drawn so that none hides a mistake."""
    torch = others("torch")
    transformers = others("transformers")

    family = {"bert": "Bert", "roberta": "Roberta"}[config.family]
    settings = {name: value for name, value in config.to_hf().items() if name != "model_type"}
    hf = getattr(transformers, f"{family}Config")(**settings, num_labels=outputs)
    model = getattr(transformers, family + kind)(hf).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            one = parameter.ndim == 1 and bool((parameter == 1).all())
            parameter.normal_(1.0 if one else 0.0, 0.3, generator=draw)
    return model


def as_torch(x):
    torch = others("torch")

    return {name: torch.from_numpy(np.asarray(value).astype(np.int64)) for name, value in x.items()}


def run(function, *args):
    return jax.device_get(jax.jit(function, compiler_options=FAST_TO_COMPILE)(*args))


def write(folder, config, tensors, **more):
    """A checkpoint of numpy arrays, as Hugging Face would have written it."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf() | more))
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def named(model):
    """The tensors of a torch model as numpy arrays, each once."""
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
