"""Every fact of a checkpoint's config that changes what it computes is followed or refused by name; sizes are bounded before anything is built."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from text_networks import CLOSE, CONFIGS, as_torch, run, texts, torch_network, write

from jaxtickets.errors import CheckpointError
from jaxtickets.models import Encoder, MaskedLM, TransformerConfig, read_checkpoint, save_pretrained
from jaxtickets.models.activations import ACTIVATIONS, activation
from jaxtickets.models.checkpoint_names import encoder_tensors, head_tensors, pooler_tensors

BERT = CONFIGS["bert"]


def altered(config, **more):
    return TransformerConfig(**(vars(config) | more))


@pytest.fixture
def transformers():
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name, transformers):
    import torch
    from transformers.activations import ACT2FN

    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 30.0, -30.0]]).astype(np.float32)
    wanted = ACT2FN[name](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(activation(name)(jnp.asarray(x)), wanted, rtol=2e-6, atol=2e-6)
    half = activation(name)(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("family", "name"),
    [("bert", "gelu_new"), ("roberta", "relu"), ("bert", "silu"), ("roberta", "gelu_pytorch_tanh")],
)
def test_a_network_of_another_activation_is_torchs(family, name, transformers, tmp_path):
    """The head for words too: RoBERTa's is GELU whatever the layers have."""
    import torch

    config = altered(CONFIGS[family], activation=name)
    net = torch_network("ForMaskedLM", config)
    net.save_pretrained(tmp_path / "a")
    read = read_checkpoint(tmp_path / "a", head="masked_lm")
    assert read.config == config
    x = texts(config)
    with torch.no_grad():
        theirs = net(**as_torch(x)).logits.numpy()
    ours = run(lambda p, x: MaskedLM(config).apply({"params": p}, x, train=False), read.params, x)
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert (
        np.abs(
            ours
            - run(
                lambda p, x: MaskedLM(CONFIGS[family]).apply({"params": p}, x, train=False),
                read.params,
                x,
            )
        ).max()
        > 1e-4
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_a_table_of_the_heads_own_is_torchs(family, transformers, tmp_path):
    import torch

    config = altered(CONFIGS[family], tied=False)
    net = torch_network("ForMaskedLM", config)
    net.save_pretrained(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["tie_word_embeddings"] is False
    read = read_checkpoint(tmp_path / "a", head="masked_lm")
    x = texts(config)
    with torch.no_grad():
        theirs = net(**as_torch(x)).logits.numpy()
    ours = run(
        lambda p, x: MaskedLM(read.config).apply({"params": p}, x, train=False), read.params, x
    )
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert (
        np.abs(read.params["head"]["table"] - read.params["encoder"]["word"]["embedding"]).max()
        > 0.1
    )
    back = transformers.AutoModelForMaskedLM.from_pretrained(
        save_pretrained(read.params, read.config, tmp_path / "b")
    ).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(back(**as_torch(x)).logits.numpy(), theirs)
    assert read_checkpoint(tmp_path / "b", head="masked_lm") == read
    assert "head" not in read_checkpoint(tmp_path / "a").params


def test_an_older_file_has_one_bias_for_both(tmp_path):
    config = altered(BERT, tied=False)
    draw = np.random.default_rng(0)
    shapes = {t.name: t.shape for t in encoder_tensors(config) + head_tensors(config, "masked_lm")}
    values = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    wanted = read_checkpoint(write(tmp_path / "a", config, values), head="masked_lm")
    values["cls.predictions.bias"] = values.pop("cls.predictions.decoder.bias")
    assert read_checkpoint(write(tmp_path / "b", config, values), head="masked_lm") == wanted


# What classes outputs stand for

MNLI = ("entailment", "neutral", "contradiction")


def classifier(folder, config=BERT, outputs=3, **more):
    draw = np.random.default_rng(0)
    tensors = (
        encoder_tensors(config)
        + pooler_tensors(config)
        + head_tensors(config, "classifier", outputs)
    )
    return write(
        folder,
        config,
        {t.name: draw.normal(0, 0.2, t.shape).astype(np.float32) for t in tensors},
        **more,
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_classes_are_read_put_in_order_and_written(family, transformers, tmp_path):
    import torch

    config = CONFIGS[family]
    net = torch_network("ForSequenceClassification", config, 3)
    net.config.id2label = {0: "CONTRADICTION", 1: "ENTAILMENT", 2: "NEUTRAL"}
    net.save_pretrained(tmp_path / "a")
    plain = read_checkpoint(tmp_path / "a", head="classifier")
    assert plain.class_names == ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    assert repr(plain) == f"Checkpoint(a: {config}, CONTRADICTION, ENTAILMENT, NEUTRAL)"
    assert read_checkpoint(tmp_path / "a").class_names == ()
    ordered = read_checkpoint(tmp_path / "a", head="classifier", class_names=MNLI)
    assert ordered.class_names == MNLI
    folder = save_pretrained(
        ordered.params, config, tmp_path / "b", class_names=ordered.class_names
    )
    back = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert back.config.id2label == dict(enumerate(MNLI))
    assert back.config.label2id == {name: i for i, name in enumerate(MNLI)}
    x = as_torch(texts(config))
    with torch.no_grad():
        # A product with its columns in another order may be added up in another one.
        np.testing.assert_allclose(
            back(**x).logits.numpy(),
            net(**x).logits.numpy()[:, [1, 2, 0]],
            rtol=1e-6,
            atol=1e-6,
        )
    assert read_checkpoint(folder, head="classifier") == ordered


@pytest.mark.parametrize(
    ("labels", "wanted", "words"),
    [
        ({"0": "yes", "1": "no", "2": "maybe"}, MNLI, r"names its outputs yes, no, maybe; class_names are entailment, neutral, contradiction"),
        (None, MNLI, r"does not name its outputs \(id2label\); class_names are entailment"),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, MNLI, r"does not name its outputs"),
        ({"0": "entailment", "1": "neutral", "2": "contradiction"}, MNLI[:2], "class_names are entailment, neutral. Leave"),
        ({"0": "a", "1": "A", "2": "b"}, ("a", "b", "c"), "names its outputs a, A, b"),
        ({"0": "a", "1": "b"}, None, "id2label is .*; a classifier of 3 outputs has a name for each number from 0 to 2"),
        ({"0": "a", "1": "b", "x": "c"}, None, "has a name for each number"),
        ({"0": "a", "1": "b", "2": 7}, None, "has a name for each number"),
        (["a", "b", "c"], None, "has a name for each number"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_told_are_refused(labels, wanted, words, tmp_path):
    folder = classifier(tmp_path / "a", **({} if labels is None else {"id2label": labels}))
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(folder, head="classifier", class_names=wanted)
    assert read_checkpoint(folder).class_names == ()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'; a classifier gives one class of each"),
        ({"architectures": ["BertForTokenClassification"]}, "its head is that of a BertForTokenClassification, which is no classifier of texts"),
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
    ],
)  # fmt: skip
def test_classifiers_of_another_kind_are_refused(more, words, tmp_path):
    folder = classifier(tmp_path / "a", **more)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(folder, head="classifier")
    assert read_checkpoint(folder).has_pooler


# Settings


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'; supported is 'absolute' alone"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder is True; supported is False alone"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"pruned_heads": {"1": [0]}}, r"pruned_heads is \{'1': \[0\]\}; supported is \{\} alone"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map"),
        ({"embedding_size": 128}, "embedding_size is 128; supported is 24 alone"),
        ({"hidden_act": "geglu"}, "hidden_act: activation is one of gelu, .*, relu, .*; got 'geglu'"),
        ({"hidden_act": None}, "hidden_act: .*got None"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: tied is True or False; got 'yes'"),
        ({"model_type": "electra"}, "model_type is 'electra'; supported are 'bert', 'roberta'"),
        ({"model_type": ["bert"]}, "model_type is"),
        ({"model_type": None, "architectures": ["ElectraModel"]}, r"has no model_type. Write \"model_type\": \"bert\" \(or what it is of 'bert', 'roberta'\)"),
        ({"model_type": None}, "has no model_type"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: layers is an integer from 1 to 1000; got 1000000000"),
        ({"num_hidden_layers": 0}, "layers is an integer from 1 to 1000; got 0"),
        ({"num_hidden_layers": 2.0}, "got 2.0"),
        ({"num_hidden_layers": "2"}, "got '2'"),
        ({"num_hidden_layers": True}, "got True"),
        ({"num_hidden_layers": 10**400}, r"got <an integer of 1,329 bits>"),
        ({"hidden_size": 0}, "hidden_size: width is an integer from 1 to 65536; got 0"),
        ({"hidden_size": -24}, "got -24"),
        ({"hidden_size": float("nan")}, "got nan"),
        ({"hidden_size": 2**40}, "width is an integer from 1 to 65536"),
        ({"num_attention_heads": 0}, "num_attention_heads: heads is an integer from 1"),
        ({"num_attention_heads": 7}, "heads divide the width; got 7 heads and a width of 24"),
        ({"vocab_size": 10**12}, "vocab_size: vocabulary is an integer from 1 to 16777216"),
        ({"vocab_size": 2**24, "hidden_size": 2**16, "embedding_size": 2**16}, r"these sizes are those of a network of 1.2e\+12 weights; at most 1e\+11"),
        ({"intermediate_size": []}, r"intermediate_size: intermediate is an integer from 1 to \d+; got \[\]"),
        ({"max_position_embeddings": None}, "max_position_embeddings: positions is"),
        ({"type_vocab_size": 0}, "type_vocab_size: token_types is"),
        ({"pad_token_id": -1}, "pad_token_id: padding is an integer from 0"),
        ({"pad_token_id": 60}, "padding is a token, below the vocabulary of 60; got 60"),
        ({"layer_norm_eps": 0}, "layer_norm_eps: eps is a number above 0"),
        ({"layer_norm_eps": float("inf")}, "eps is a number above 0"),
        ({"layer_norm_eps": "1e-5"}, "eps is a number above 0.*got '1e-5'"),
        ({"layer_norm_eps": 10**400}, "eps is a number above 0"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob: dropout is a number in \[0, 1\); got 1.0"),
        ({"attention_probs_dropout_prob": float("nan")}, "attention_dropout is a number"),
        ({"classifier_dropout": -0.1}, "classifier_dropout is a number"),
        ({"initializer_range": -1}, "initial_scale is a number above 0"),
    ],
)  # fmt: skip
def test_settings_that_are_not_followed_are_refused_by_name(more, words, tmp_path):
    settings = {
        name: value
        for name, value in (BERT.to_hf() | more).items()
        if not (name == "model_type" and value is None)
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=words) as error:
        read_checkpoint(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "config.json"))
    assert len(str(error.value)) < 600


def test_settings_that_change_nothing_are_taken():
    more = {
        "chunk_size_feed_forward": 3,
        "use_cache": False,
        "torch_dtype": "float16",
        "dtype": "bfloat16",
        "pruned_heads": {},
        "is_decoder": None,
        "embedding_size": 24,
        "gradient_checkpointing": True,
        "bos_token_id": 0,
        "id2label": {"0": "x"},
        "transformers_version": "4.6",
    }
    assert TransformerConfig.from_hf(BERT.to_hf() | more) == BERT
    for family, name in (
        ("bert", "BertForPreTraining"),
        ("roberta", "RobertaForSequenceClassification"),
        ("bert", "BertModel"),
    ):
        settings = {
            field: value
            for field, value in CONFIGS[family].to_hf().items()
            if field != "model_type"
        }
        assert TransformerConfig.from_hf(settings | {"architectures": [name]}) == CONFIGS[family]


@pytest.mark.parametrize("depth", [3000, 10**6])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "model.safetensors"]
)
def test_deep_json_is_damage(name, depth, tmp_path):
    folder = classifier(tmp_path / "a")
    deep = b'{"x":' * depth + b"1" + b"}" * depth
    if name == "model.safetensors":
        (folder / name).write_bytes(len(deep).to_bytes(8, "little") + deep)
    else:
        (folder / "model.safetensors").unlink(missing_ok=name.endswith("index.json"))
        (folder / name).write_bytes(deep)
    with pytest.raises(
        CheckpointError, match=f"{name}: (not a .* file, or damaged|has no weight_map)"
    ):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("layers", 10**9), ("width", "24"), ("heads", 0), ("family", "gpt2"), ("activation", ["gelu"]), ("tied", 1), ("eps", float("nan")), ("padding", -1)],
)  # fmt: skip
def test_a_config_by_hand_names_the_field(field, value):
    with pytest.raises(ValueError, match=rf"^TransformerConfig: {field} is .*; got "):
        TransformerConfig(**{field: value})


# Names


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "module.FAMILY.",
        "model.",
        "model.FAMILY.",
        "backbone.",
        "0.auto_model.",
        "_orig_mod.module.FAMILY.",
        "FAMILY.",
    ],
)
def test_what_wrappers_put_before_names_makes_no_difference(family, prefix, tmp_path):
    config = CONFIGS[family]
    folder = classifier(tmp_path / "a", config)
    wanted = read_checkpoint(folder, head="classifier")
    from safetensors.numpy import load_file

    values = load_file(folder / "model.safetensors")
    prefix = prefix.replace("FAMILY", family)
    around = prefix.removesuffix(f"{family}.")
    for head_prefix in {around, ""}:
        named = {
            (head_prefix if name.startswith("classifier") else prefix) + name: value
            for name, value in values.items()
        }
        again = write(tmp_path / f"b{len(head_prefix)}", config, named)
        assert read_checkpoint(again, head="classifier") == wanted


def test_tensors_of_other_heads_are_left_out_when_told(tmp_path):
    folder = classifier(tmp_path / "a")
    from safetensors.numpy import load_file

    values = load_file(folder / "model.safetensors")
    more = {
        "mlp.dense.weight": np.ones((2, 2), np.float32),
        "mlp.dense.bias": np.ones(2, np.float32),
        "crf.transitions": np.ones(2, np.float32),
    }
    other = write(tmp_path / "b", BERT, values | more)
    with pytest.raises(
        CheckpointError,
        match=r"no use for 'crf.transitions' and 2 more.*of another kind is left out by ignore=\['crf'\]",
    ):
        read_checkpoint(other)
    with pytest.raises(
        CheckpointError, match=r"no use for 'mlp.dense.bias' and 1 more.*ignore=\['mlp'\]"
    ):
        read_checkpoint(other, ignore=["^crf"])
    assert read_checkpoint(other, ignore=["^crf", "^mlp"]) == read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"ignore: '\^simcse' matches none of its tensors, "):
        read_checkpoint(other, ignore=["^simcse"])
    with pytest.raises(CheckpointError, match=r"lacks 'pooler.dense.bias'"):
        read_checkpoint(other, ignore=["crf", "mlp", "pooler.dense.bias"])
    both = {f"query.{name}": value for name, value in values.items()} | {
        f"document.{name}": value for name, value in values.items()
    }
    pair = write(tmp_path / "c", BERT, both)
    with pytest.raises(
        CheckpointError,
        match=r"holds several encoders, 'query.', 'document.'; leave all but one out with ignore=",
    ):
        read_checkpoint(pair)
    assert read_checkpoint(pair, ignore=["^document"]) == read_checkpoint(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": 3}, "where is a folder or a model's name on the hub; got 3"),
        ({"where": ""}, "where is"),
        ({"where": "a\0b"}, "where is"),
        ({"head": "mlm"}, "head is 'classifier', 'masked_lm' or None; got 'mlm'"),
        ({"head": ["classifier"]}, "head is"),
        ({"revision": 3}, "revision is a branch, a tag or a commit, or None; got 3"),
        ({"ignore": "crf"}, r"ignore is a list of regular expressions, such as \['\^crf'\]; got 'crf'"),
        ({"ignore": ["["]}, "ignore is a list"),
        ({"ignore": [3]}, "ignore is a list"),
        ({"class_names": "ab", "head": "classifier"}, "class_names are different words"),
        ({"class_names": ["a", "a"], "head": "classifier"}, "class_names are different words"),
        ({"class_names": ["a", "b"]}, "need head='classifier'; got head=None"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=f"^read_checkpoint: .*{words}"):
        read_checkpoint(**({"where": "nowhere"} | arguments))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": {"layers": 3}}, r"config is the TransformerConfig of the network; got \{'layers': 3\}"),
        ({"folder": 3}, "folder is a path; got 3"),
        ({"network": [1]}, r"network is one ticket \(tickets.members\[0\]\), or params; got a list"),
        ({"class_names": ["a"]}, r"class_names are different words, one for each output; the network has 3 outputs, and they are \['a'\]"),
        ({"class_names": "abc"}, "class_names are different words"),
        ({"class_names": ["a", "b", "a"]}, "class_names are different words"),
        ({"class_names": [1, 2, 3]}, "class_names are different words"),
    ],
)  # fmt: skip
def test_what_cannot_be_written(changed, words, tmp_path):
    read = read_checkpoint(classifier(tmp_path / "a"), head="classifier")
    arguments = {"network": read.params, "config": BERT, "folder": tmp_path / "b"} | changed
    with pytest.raises(ValueError, match=f"^save_pretrained: {words}"):
        save_pretrained(**arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    read = read_checkpoint(classifier(tmp_path / "a"), head="classifier")
    read.params["head"]["classifier"]["bias"][1] = np.nan
    with pytest.raises(ValueError, match=r"'head/classifier/bias' holds NaN or infinite values"):
        save_pretrained(read.params, BERT, tmp_path / "b")
    with pytest.raises(ValueError, match=r"the network is no classifier"):
        save_pretrained(
            {"encoder": read.params["encoder"]}, BERT, tmp_path / "b", class_names=["a"]
        )
    assert Encoder(BERT)
