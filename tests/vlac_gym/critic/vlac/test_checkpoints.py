"""Checkpoints of a hub on the engines: native ones, and VLAC's own format, converted on first use."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import original_checkpoint as original
import pytest
from local_hub import LocalHub, read

from vlac_gym.cli import main
from vlac_gym.critic import make_critic
from vlac_gym.critic.vlac.checkpoints import find_checkpoint
from vlac_gym.critic.vlac.convert import convert_checkpoint
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes, make_tiny_checkpoint
from vlac_gym.errors import ConfigError
from vlac_gym.files.digest import file_digest

USE = "critic.vlac.checkpoints:find_checkpoint"


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[LocalHub]:
    root = tmp_path_factory.mktemp("served")
    original.write_original(root / "acme/vlac/main", original.train_sentencepiece())
    make_tiny_checkpoint(root / "acme/native/main", sizes=ModelSizes(image_size=56))
    hub = LocalHub(root)
    yield hub
    hub.stop()


@pytest.fixture
def home(hub, tmp_path, monkeypatch) -> Path:
    """A cache of the test's own, which this process uses too."""
    home = tmp_path / "home"
    hub.use_in_this_process(monkeypatch, home)
    return home


def frames() -> list:
    return list(np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), np.uint8))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}


def test_native_checkpoint_of_the_hub_answers_as_its_folder_does(hub, home):
    local = make_critic(
        f"transformers:{hub.root}/acme/native/main", device="cpu", reading="exact", out_of_scale="clip"
    )
    critic = make_critic("transformers:acme/native?device=cpu,reading=exact", out_of_scale="clip")
    tasks = ["open the drawer"] * 2
    assert critic.success_prob(frames(), tasks).tolist() == local.success_prob(frames(), tasks).tolist()
    info = critic.describe()
    [snapshot] = home.glob("hub/models--acme--native/snapshots/*")
    assert info.model == f"acme/native@{snapshot.name}"
    assert info.details["folder"] == str(snapshot)
    # The fingerprint is that of the files, wherever they came from: what was measured on the folder holds here.
    assert info.fingerprint == local.describe().fingerprint
    assert "folder" not in local.describe().details
    assert not (home / "assets").exists()


def test_own_format_is_converted_on_first_use_and_found_on_the_second(hub, home, tmp_path, caplog):
    first = find_checkpoint("acme/vlac")
    assert first.folder == home / f"assets/vlac_gym/acme--vlac/native-1/{first.commit}"
    assert f"{first.name} is in VLAC's own format; converting it once" in caplog.text
    convert_checkpoint(hub.root / "acme/vlac/main", tmp_path / "by-hand")
    assert digests(first.folder) == digests(tmp_path / "by-hand")

    before, made = hub.requests(), first.folder.stat().st_mtime_ns
    critic = make_critic("transformers:acme/vlac?device=cpu,out_of_scale=clip")
    assert critic.describe().model == first.name
    assert critic.describe().details["folder"] == str(first.folder)
    assert (hub.requests(), first.folder.stat().st_mtime_ns) == (before, made)

    # The command takes ids too, and converts without the cache.
    assert main(["convert", "--from", "acme/vlac", "--to", str(tmp_path / "by-command")]) == 0
    assert digests(tmp_path / "by-command") == digests(first.folder)


def test_processes_that_start_together_convert_once_and_later_ones_need_no_network(hub, tmp_path):
    home = tmp_path / "home"
    ended = [read(process) for process in [hub.start(home, "acme/vlac", use=USE) for _ in range(2)]]
    [first], [second] = (found for found, _ in ended)
    assert first == second
    assert sorted(text.count("converting it once") for _, text in ended) == [0, 1]
    assert hub.find(home, "acme/vlac", use=USE, HF_HUB_OFFLINE="1") == [first]


def test_conversion_that_was_killed_is_made_anew(hub, home):
    found = find_checkpoint("acme/vlac", convert=False)
    parent = home / "assets/vlac_gym/acme--vlac/native-1"
    half = parent / f".partial-{found.commit}"
    half.mkdir(parents=True)
    (half / "model-00001-of-00002.safetensors").write_bytes(b"half")
    native = find_checkpoint("acme/vlac").folder
    assert native == parent / str(found.commit)
    assert (native / "model-00001-of-00002.safetensors").stat().st_size > 4
    assert not half.exists()


def test_code_travels_only_where_it_may_run(hub, home):
    assert not list(find_checkpoint("acme/vlac", convert=False).folder.glob("*.py"))
    found = find_checkpoint("acme/vlac", convert=False, with_code=True)
    assert len(list(found.folder.glob("*.py"))) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            '{"model_type": "llama"}',
            "Expected a checkpoint in VLAC's own format .* got 'llama' in .*config.json",
        ),
        (
            '{"model_type": "internvl_chat", "llm_config": {"architectures": ["Qwen2ForCausalLM"]}}',
            "got .*Qwen2",
        ),
        ("[]", "Expected a model with a config.json that says its model_type"),
        (None, "Expected a model with a config.json that says its model_type"),
    ],
)
def test_wrong_kind_of_model_is_refused_before_its_weights_travel(hub, home, config, message):
    folder = hub.root / "acme/wrong/main"
    shutil.copytree(hub.root / "acme/vlac/main", folder)
    try:
        (folder / "config.json").unlink()
        if config is not None:
            (folder / "config.json").write_text(config)
        with pytest.raises(ConfigError, match=message):
            make_critic("transformers:acme/wrong")
    finally:
        shutil.rmtree(folder.parent)
    assert not list(home.rglob("*.safetensors"))


def test_bad_options_are_refused_before_anything_travels(hub, home):
    before = hub.requests()
    with pytest.raises(ConfigError, match="Unknown reading 'poor'"):
        make_critic("transformers:acme/native?reading=poor")
    with pytest.raises(ConfigError, match="option 'divice'"):
        make_critic("transformers:acme/native", divice="cpu")
    assert hub.requests() == before
