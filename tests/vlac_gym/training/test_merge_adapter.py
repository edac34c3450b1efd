"""`vlac-gym merge-adapter` on a tiny InternVL and a tiny Llama, with random adapters of peft itself."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
import vllm_answers
from local_hub import LocalHub
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from vlac_gym.cli import main
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes, make_tiny_checkpoint, train_tokenizer
from vlac_gym.errors import ConfigError
from vlac_gym.files.digest import file_digest
from vlac_gym.training.merge_adapter import merge_adapter

SIZES = ModelSizes(image_size=56)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny-internvl", sizes=SIZES)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    train_tokenizer().save_pretrained(folder)
    return folder


def kind_of(base: Path) -> type:
    name = json.loads((base / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name)


def load(folder: Path, base: Path):
    return kind_of(base).from_pretrained(folder, dtype="auto").eval()


def make_adapter(base: Path, folder: Path, **options) -> Path:
    """A trained-looking adapter: peft starts B at zero, so that it is drawn here."""
    torch.manual_seed(1)
    targets = options.pop("target_modules", ["q_proj", "v_proj", "down_proj"])
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, **options)
    model = get_peft_model(load(base, base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.05)
    model.save_pretrained(folder)
    return folder


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


@pytest.mark.parametrize("name", ["internvl", "llama"])
def test_merged_folder_answers_as_base_and_adapter_do(name, request, tmp_path, capsys):
    base = request.getfixturevalue(name)
    adapter = make_adapter(base, tmp_path / "adapter")
    out = tmp_path / "merged"
    assert main(["merge-adapter", "--base", str(base), "--adapter", str(adapter), "--to", str(out)]) == 0
    assert "modules merged, stored as float32" in capsys.readouterr().out

    ids = [5, 300, 77, 1200, 9]
    merged = load(out, base)
    expected = logits(PeftModel.from_pretrained(load(base, base), adapter), ids)
    torch.testing.assert_close(logits(merged, ids), expected, rtol=1e-4, atol=1e-4)
    assert (logits(load(base, base), ids) - expected).abs().max() > 0.01
    # vLLM loads by the names in the file: they are those of the base.
    assert load_file(out / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.encode("42 cups") == transformers.AutoTokenizer.from_pretrained(base).encode("42 cups")


def test_base_and_adapter_of_a_hub_are_merged_as_folders_are(llama, tmp_path, monkeypatch):
    adapter = make_adapter(llama, tmp_path / "adapter")
    merge_adapter(llama, adapter, tmp_path / "local")
    shutil.copytree(llama, tmp_path / "served/acme/tiny-llama/main")
    shutil.copytree(adapter, tmp_path / "served/acme/adapter/v1")
    hub = LocalHub(tmp_path / "served")
    try:
        hub.use_in_this_process(monkeypatch, tmp_path / "home")
        out = tmp_path / "merged"
        command = [
            "merge-adapter",
            "--base",
            "acme/tiny-llama",
            "--adapter",
            "acme/adapter@v1",
            "--to",
            str(out),
        ]
        assert main(command) == 0
    finally:
        hub.stop()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "local/model.safetensors").read_bytes()
    said = json.loads((out / "merge_metadata.json").read_text())
    assert said["base_model"].startswith("acme/tiny-llama@")
    assert said["adapter"].startswith("acme/adapter@")
    assert said["adapter_sha256"].keys() == {"adapter_config.json", "adapter_model.safetensors"}


def test_metadata_tells_what_was_merged(internvl, tmp_path):
    adapter = make_adapter(internvl, tmp_path / "adapter")
    merge = merge_adapter(internvl, adapter, tmp_path / "merged")
    said = json.loads((tmp_path / "merged/merge_metadata.json").read_text())
    assert said["base_model"] == str(internvl)
    assert said["adapter_base_model"] == str(internvl)
    assert said["base_sha256"]["model.safetensors"] == file_digest(internvl / "model.safetensors")
    assert said["adapter_sha256"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert said["target_sha256"]["model.safetensors"] == file_digest(tmp_path / "merged/model.safetensors")
    assert said["versions"].keys() == {"vlac_gym", "peft", "transformers", "torch"}
    assert said["probe"] == "text and image"
    assert said["max_difference"] == merge.max_difference < 1e-3 < merge.adapter_effect
    # q and v of 2 vision and 2 text layers, down of 2 text layers; InternVL's vision has no down_proj.
    assert said["num_adapted"] == 10
    written = {file.name for file in (tmp_path / "merged").iterdir()}
    assert {file.name for file in internvl.iterdir()} <= written


def test_adapter_files_win_over_those_of_the_base(llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("adapter's")
    merge_adapter(llama, adapter, tmp_path / "merged")
    assert (tmp_path / "merged/chat_template.jinja").read_text() == "adapter's"
    assert (tmp_path / "merged/tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()


def test_another_dtype_is_the_float32_merge_rounded(llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter")
    merge_adapter(llama, adapter, tmp_path / "exact")
    merge_adapter(llama, adapter, tmp_path / "half", dtype="bfloat16")
    exact, half = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "half"))
    assert all(torch.equal(half[name], exact[name].to(torch.bfloat16)) for name in exact)
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"


def test_whole_modules_saved_with_an_adapter_replace_those_of_the_base(internvl, tmp_path):
    adapter = make_adapter(internvl, tmp_path / "adapter", modules_to_save=["lm_head"])
    merge_adapter(internvl, adapter, tmp_path / "merged")
    head = load(tmp_path / "merged", internvl).lm_head.weight
    saved = load_file(adapter / "adapter_model.safetensors")
    assert torch.equal(head, saved["base_model.model.lm_head.weight"])


def refused(base: Path, adapter: Path, out: Path, message: str, **options) -> None:
    with pytest.raises(ConfigError, match=message):
        merge_adapter(base, adapter, out, **options)
    assert not out.exists()


def test_mismatched_pairs_are_refused_and_nothing_is_written(internvl, llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter")
    out = tmp_path / "merged"
    refused(internvl, adapter, out, "was trained on .*tiny-llama.* If they are the same, say --on-base-mis")
    refused(internvl, adapter, out, "does not fit the base", on_base_mismatch="warn")


def test_adapter_with_modules_that_the_base_lacks_is_refused(llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    stray = {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}
    save_file(stray, path)
    refused(
        llama, adapter, tmp_path / "merged", "6 of its tensors have no place there .*layers.7.*and 6 that"
    )


def test_adapter_of_another_shape_is_refused(llama, tmp_path):
    adapter = make_adapter(llama, tmp_path / "adapter")
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: t[:, :1].contiguous() if "lora_A" in name else t for name, t in tensors.items()}, path)
    refused(llama, adapter, tmp_path / "merged", "does not fit the base.*size mismatch")


def test_same_base_under_another_path_is_taken(llama, tmp_path, caplog):
    adapter = make_adapter(llama, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/mnt/elsewhere/tiny-llama"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    merge_adapter(llama, adapter, tmp_path / "merged")
    config["base_model_name_or_path"] = "/mnt/elsewhere/another"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    refused(llama, adapter, tmp_path / "again", "'/mnt/elsewhere/another'")
    merge_adapter(llama, adapter, tmp_path / "warned", on_base_mismatch="warn")
    assert "was trained on '/mnt/elsewhere/another'" in caplog.text


def test_untrained_adapter_is_told(llama, tmp_path, caplog):
    adapter = tmp_path / "adapter"
    get_peft_model(load(llama, llama), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    assert merge_adapter(llama, adapter, tmp_path / "merged").adapter_effect == 0.0
    assert "changes nothing on the probe" in caplog.text


def test_folders_that_are_no_checkpoint_or_adapter_are_refused(llama, tmp_path):
    out = tmp_path / "merged"
    refused(tmp_path, tmp_path, out, "config.json for --base")
    refused(llama, tmp_path, out, "adapter_config.json for --adapter")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["internvl", "llama"])
def test_vllm_loads_the_merged_folder_and_answers_as_transformers_does(name, request, tmp_path):
    python = os.environ.get("VLAC_VLLM_PYTHON")
    if not python:
        pytest.skip("VLAC_VLLM_PYTHON names no interpreter with vLLM; run scripts/compare_engines.sh")
    base = request.getfixturevalue(name)
    adapter = make_adapter(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "merged")
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [python, vllm_answers.__file__, str(tmp_path / "merged"), str(tmp_path / "answers.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-4000:]

    ids, merged, unmerged = list(vllm_answers.PROMPT), load(tmp_path / "merged", base), load(base, base)
    largest, effect = 0.0, 0.0
    for step in json.loads((tmp_path / "answers.json").read_text()):
        ours, before = (logits(model, ids)[0, -1].log_softmax(-1) for model in (merged, unmerged))
        ids.append(int(ours.argmax()))
        assert max(step, key=step.get) == str(ids[-1])
        largest = max([largest, *(abs(ours[int(token)].item() - value) for token, value in step.items())])
        effect = max([effect, *(abs(before[int(token)].item() - value) for token, value in step.items())])
    print(f"log-probabilities differ by {largest:.1e} at most; what the adapter does to them: {effect:.1e}")
    assert largest < 1e-3 < 1e-2 < effect
