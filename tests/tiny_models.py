"""Small random sentence models of several architectures, and what plain transformers makes of them.

Run by the environment that has torch: ``python tests/tiny_models.py OUT`` writes a folder per model to OUT,
exports each to OUT/exported, and leaves texts and reference vectors in OUT/reference.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from contract.errors import StoppressError
from export import graph
from export.encoder import export_encoder

TEXTS = [
    "Harbour council votes to keep the night ferry", "", "GOAL", "新闻：上海台风", "🚀 lift-off delayed again",
    "the river rose in the night and the bridge was closed to all but the fire brigade " * 3,
]  # fmt: skip
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ST = "sentence_transformers.models."


def tokenizer(*, special: list[str], post: tuple[str, str] | None, lower: bool) -> transformers.PreTrainedTokenizerFast:
    """A byte-level tokenizer with ``special`` as its first ids; ``post`` is what surrounds every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if lower:
        made.normalizer = normalizers.Lowercase()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if post:
        first, last = post
        ids = [(token, made.token_to_id(token)) for token in post]
        made.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=special[0], model_max_length=64)


def write(folder: Path, body: Any, words: Any, modules: dict[str, dict[str, Any]] | None, **files: Any) -> None:
    """Save ``body`` and its tokenizer; with ``modules`` (kind: config) in sentence-transformers layout."""
    torch.manual_seed(1)
    body.save_pretrained(folder)
    words.save_pretrained(folder)
    if modules is not None:
        listed = [{"idx": 0, "name": "0", "path": "", "type": f"{ST}Transformer"}]
        for i, (kind, config) in enumerate(modules.items(), 1):
            path = folder / f"{i}_{kind}"
            path.mkdir()
            (path / "config.json").write_text(json.dumps(config))
            listed.append({"idx": i, "name": str(i), "path": path.name, "type": f"{ST}{kind}"})
        (folder / "modules.json").write_text(json.dumps(listed))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def build(out: Path) -> dict[str, dict[str, Any]]:
    """Write the models; return for each how its vectors are made, for :func:`reference`."""
    torch.manual_seed(0)
    bert_words = tokenizer(special=["[PAD]", "[CLS]", "[SEP]"], post=("[CLS]", "[SEP]"), lower=True)
    cased_words = tokenizer(special=["[PAD]", "[CLS]", "[SEP]"], post=("[CLS]", "[SEP]"), lower=False)
    roberta_words = tokenizer(special=["<s>", "<pad>", "</s>"], post=("<s>", "</s>"), lower=False)
    roberta_words.pad_token = "<pad>"
    plain_words = tokenizer(special=["<pad>"], post=None, lower=False)
    size = {"vocab_size": 400}
    shape = size | SMALL

    bert = transformers.BertModel(transformers.BertConfig(**shape, max_position_embeddings=64))
    write(out / "bert-plain", bert, bert_words, None)
    write(
        out / "bert-cls-dense", bert, bert_words,
        {"Pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
         "Dense": {"in_features": 32, "out_features": 24, "activation_function": "torch.nn.modules.activation.Tanh"},
         "Normalize": {}},
        sentence_bert_config={"max_seq_length": 16},
        config_sentence_transformers={"prompts": {"query": "query: ", "passage": "passage: "}},
    )  # fmt: skip
    dense = torch.nn.Linear(32, 24)
    save_file({f"linear.{name}": value for name, value in dense.state_dict().items()},
              out / "bert-cls-dense" / "2_Dense" / "model.safetensors")  # fmt: skip
    distilbert = transformers.DistilBertModel(
        transformers.DistilBertConfig(**size, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64)
    )
    write(out / "distilbert-lower", distilbert, cased_words, {"Pooling": {"pooling_mode": "mean"}},
          sentence_bert_config={"max_seq_length": None, "do_lower_case": True})  # fmt: skip
    places = {"pad_token_id": 1, "max_position_embeddings": 40}
    xlmr = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**shape, **places))
    write(out / "xlm-roberta-mean", xlmr, roberta_words,
          {"Pooling": {"pooling_mode_mean_tokens": True}, "Normalize": {}},
          config_sentence_transformers={"prompts": {"q": "Represent: "}, "default_prompt_name": "q"})  # fmt: skip
    mpnet = transformers.MPNetModel(transformers.MPNetConfig(**shape, **places))
    write(out / "mpnet-mean", mpnet, roberta_words, {"Pooling": {"pooling_mode_mean_tokens": True}, "Normalize": {}})
    qwen = transformers.Qwen3Model(
        transformers.Qwen3Config(**shape, num_key_value_heads=2, head_dim=8, max_position_embeddings=64)
    )
    write(out / "qwen3-last", qwen, plain_words, {"Pooling": {"pooling_mode_lasttoken": True}, "Normalize": {}})
    modern = transformers.ModernBertModel(
        transformers.ModernBertConfig(**shape, max_position_embeddings=64, pad_token_id=0, local_attention=16)
    )
    write(out / "modernbert-cls", modern, bert_words, {"Pooling": {"pooling_mode": "cls"}, "Normalize": {}})
    return {
        "bert-plain": {"pool": "mean", "length": 64},
        "bert-cls-dense": {"pool": "cls", "length": 16, "prompt": "passage: ", "dense": dense},
        "distilbert-lower": {"pool": "mean", "length": 64, "lower": True},
        "xlm-roberta-mean": {"pool": "mean", "length": 38, "prompt": "Represent: "},
        "mpnet-mean": {"pool": "mean", "length": 38},
        "qwen3-last": {"pool": "last", "length": 64},
        "modernbert-cls": {"pool": "cls", "length": 64},
    }


def reference(folder: Path, how: dict[str, Any]) -> list[list[float]]:
    """Each text alone through plain transformers, with the pooling written out."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    body = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in TEXTS:
        text = how.get("prompt", "") + (text.lower() if how.get("lower") else text)
        ids = words(text, truncation=True, max_length=how["length"])["input_ids"] or [0]
        with torch.no_grad():
            hidden = body(input_ids=torch.tensor([ids])).last_hidden_state[0]
            vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[how["pool"]]
            if "dense" in how:
                vector = torch.tanh(how["dense"](vector))
        vectors.append((vector / vector.norm()).tolist())
    return vectors


def refused(model: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Export what cannot be exported; return the error."""
    try:
        export_encoder(str(model), out, console=Console(quiet=True), **options)
    except StoppressError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    return {"error": "", "exit_code": 0}


def main(out: Path) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # with other tests on the same cores more threads wait for each other
    quiet = Console(quiet=True)
    exported = out / "exported"
    vectors = {}
    for name, how in build(out).items():
        vectors[name] = reference(out / name, how)
        export_encoder(str(out / name), exported / name, console=quiet)

    bert = out / "bert-plain"
    export_encoder(str(bert), exported / "bert-fp16", precision="fp16", console=quiet)
    numbers = [f"{word} {i}" for word in TEXTS[5].split()[:16] for i in range(40)]
    export_encoder(str(bert), exported / "bert-8", dims=8, corpus=numbers, console=quiet)
    shutil.copytree(bert, out / "bert-first-16")
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{ST}Transformer"},
              {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{ST}Pooling"}]  # fmt: skip
    (out / "bert-first-16" / "modules.json").write_text(json.dumps(listed))
    (out / "bert-first-16" / "1_Pooling").mkdir()
    (out / "bert-first-16" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    (out / "bert-first-16" / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 16}))
    command = ["export", "encoder", out / "bert-first-16", exported / "bert-first-16", "--precision=fp16"]
    subprocess.run([sys.executable, "-m", "stoppress", *map(str, command)], check=True)
    graph.LARGEST_FILE = 0
    export_encoder(str(bert), exported / "bert-in-two-files", console=quiet)

    for name, file in (("no-weights", "model.safetensors"), ("no-tokenizer", "tokenizer.json")):
        shutil.copytree(bert, out / name)
        (out / name / file).unlink()
    shutil.copytree(bert, out / "corrupt")
    (out / "corrupt" / "model.safetensors").write_bytes(b"not weights")
    refusals = {name: refused(out / name, exported / name) for name in ("no-weights", "no-tokenizer", "corrupt")}
    refusals["not-equal"] = refused(bert, exported / "bert-8", least_cosine=1.1)
    refusals["too-wide"] = refused(bert, exported / "wide", dims=33, corpus=numbers)
    wide = transformers.BertModel(transformers.BertConfig(**SMALL | {"hidden_size": 640, "vocab_size": 400}))
    write(out / "wide", wide, transformers.AutoTokenizer.from_pretrained(bert), None)
    refusals["no-axes"] = refused(out / "wide", exported / "no-axes", dims=600, corpus=numbers)
    results = {"texts": TEXTS, "vectors": vectors, "refusals": refusals}
    (out / "reference.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
