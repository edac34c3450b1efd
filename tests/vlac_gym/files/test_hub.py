"""`find_model` through the real client, against a hub of files in a process of its own."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import original_checkpoint as original
import pytest
from local_hub import LocalHub, read, wait_for

from vlac_gym.files.hub import find_model

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
WANTED = {"config.json", "model.safetensors.index.json", "tokenizer.model", "tokenizer_config.json", *SHARDS}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A checkpoint in VLAC's own layout, with more than a loader wants."""
    folder = tmp_path_factory.mktemp("files") / "main"
    original.write_original(folder, original.train_sentencepiece())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("card")
    (folder / "onnx").mkdir()
    (folder / "onnx/config.json").write_text("{}")
    return folder


@pytest.fixture
def hub(files, tmp_path) -> Iterator[LocalHub]:
    root = tmp_path / "served"
    shutil.copytree(files, root / "acme/vlac/main")
    hub = LocalHub(root)
    yield hub
    hub.stop()


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def test_folder_that_exists_wins_and_what_is_no_id_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "acme/vlac").mkdir(parents=True)
    for target in (
        "acme/vlac",
        "/acme/vlac",
        "vlac",
        "a/b/c",
        "./acme",
        "~/vlac",
        "acme/vlac@",
        "acme/.vlac",
    ):
        found = find_model(target)
        assert (found.folder, found.name, found.repo, found.commit) == (Path(target), target, None, None)


def test_first_use_downloads_what_is_wanted_and_the_second_asks_nobody(hub, home):
    [first] = hub.find(home, "acme/vlac")
    commit = Path(first["folder"]).name
    assert first["name"] == f"acme/vlac@{commit}"
    assert {path.name for path in Path(first["folder"]).iterdir()} == WANTED
    assert all(hub.gets(name) == ["-"] for name in WANTED)
    # Weights come last, so that a wrong kind of model is refused before them.
    seen = [line.split()[1] for line in hub.requests() if line.startswith("GET ")]
    assert set(seen[-2:]) == set(SHARDS)

    before = hub.requests()
    assert hub.find(home, "acme/vlac", f"acme/vlac@{commit}") == [first, first]
    assert hub.requests() == before


def test_revision_is_a_branch_tag_or_commit_and_a_branch_stays_where_it_was(hub, home):
    shutil.copytree(hub.root / "acme/vlac/main", hub.root / "acme/vlac/v1.0")
    (hub.root / "acme/vlac/v1.0/generation_config.json").write_text("{}")
    main, tagged = hub.find(home, "acme/vlac", "acme/vlac@v1.0")
    assert main["name"] != tagged["name"]
    assert (Path(tagged["folder"]) / "generation_config.json").exists()
    assert not (Path(main["folder"]) / "generation_config.json").exists()

    (hub.root / "acme/vlac/main/added_tokens.json").write_text("{}")
    assert hub.find(home, "acme/vlac") == [main]
    # What the documentation says to run for the newest.
    subprocess.run(
        [str(Path(sys.executable).with_name("hf")), "download", "acme/vlac"],
        env=hub.environment(home),
        check=True,
        capture_output=True,
        timeout=120,
    )
    before = hub.requests()
    [newest] = hub.find(home, "acme/vlac")
    assert (Path(newest["folder"]) / "added_tokens.json").exists()
    assert hub.requests() == before


def test_offline_takes_what_is_in_the_cache_and_says_how_to_get_the_rest(hub, home):
    [found] = hub.find(home, "acme/vlac")
    targets = ("acme/vlac", "acme/other@v2")
    offline, refused = hub.find(home, *targets, HF_HUB_OFFLINE="1")
    assert offline == found
    assert "acme/other (revision v2) in " + str(home / "hub") in refused["error"]
    assert "HF_HUB_OFFLINE is set" in refused["error"]
    assert (
        "Run where there is a network: hf download acme/other --revision v2; then bring" in refused["error"]
    )

    hub.stop()
    offline, refused = hub.find(home, *targets)
    assert offline == found
    assert f"no answer from {hub.url}: " in refused["error"]


def test_what_the_hub_refuses_is_told_with_what_to_do(hub, home):
    def put(name: str, *files: str) -> None:
        for file in files:
            path = hub.root / "acme" / name / "main" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    put("gated", "config.json", "model.safetensors")
    (hub.root / "acme/gated/gated").touch()
    put("pickled", "config.json", "pytorch_model.bin")
    put("cut", "config.json", "model.safetensors")
    (hub.root / "acme/cut/main/model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}'
    )
    targets = ("acme/none", "acme/vlac@v9", "acme/gated", "acme/pickled", "acme/cut", "acme/a..b")
    none, revision, gated, pickled, cut, bad = (found["error"] for found in hub.find(home, *targets))
    here = (
        f"at {hub.url}, got 'acme/none': there is no such folder in {home.parent}, and no such public model"
    )
    assert here in none
    assert "hf auth login" in none
    assert f"commit of acme/vlac behind '@', got 'v9', which {hub.url} does not have" in revision
    assert f"acme/gated is gated. Ask for access at {hub.url}/acme/gated, then run: hf auth login" in gated
    assert "Expected safetensors weights in the model acme/pickled@" in pickled
    assert "never loaded" in pickled
    assert "or not all that its index names" in cut
    assert cut.endswith("If a download was cut short, run: hf download acme/cut")
    assert "got 'acme/a..b': there is no such folder" in bad


def test_killed_download_goes_on_with_the_files_that_are_missing(hub, home):
    (hub.root / "stall").write_text(SHARDS[1])
    process = hub.start(home, "acme/vlac")
    wait_for(lambda: hub.gets(SHARDS[1]) and list(home.glob(f"hub/*/snapshots/*/{SHARDS[0]}")))
    process.kill()
    process.communicate()
    (hub.root / "stall").unlink()

    [refused] = hub.find(home, "acme/vlac", HF_HUB_OFFLINE="1")
    assert "where it is not, or not whole" in refused["error"]
    [found] = hub.find(home, "acme/vlac")
    for name in WANTED:
        assert (Path(found["folder"]) / name).read_bytes() == (
            hub.root / "acme/vlac/main" / name
        ).read_bytes()
    assert {name: len(hub.gets(name)) for name in WANTED} == dict.fromkeys(WANTED, 1) | {SHARDS[1]: 2}


def test_connection_that_breaks_is_taken_up_again(hub, home):
    (hub.root / "drop").write_text(SHARDS[0])
    [found] = hub.find(home, "acme/vlac")
    assert len(hub.gets(SHARDS[0])) == 2
    assert (Path(found["folder"]) / SHARDS[0]).read_bytes() == (
        hub.root / "acme/vlac/main" / SHARDS[0]
    ).read_bytes()


def test_processes_that_start_together_download_once(hub, home):
    (hub.root / "stall").write_text(SHARDS[1])
    processes = [hub.start(home, "acme/vlac") for _ in range(2)]
    wait_for(lambda: sum("/tree/" in line or "/revision/" in line for line in hub.requests()) >= 3)
    (hub.root / "stall").unlink()
    [first], [second] = (read(process)[0] for process in processes)
    assert first == second
    assert all(hub.gets(name) == ["-"] for name in WANTED)
