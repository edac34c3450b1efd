"""Modules changed when they are imported, and classes replaced without importing their module."""

import importlib
import sys
from contextlib import contextmanager

import pytest

from verl_env_adapter.common.import_hooks import after_import, replace_class, wrap_once


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """A package whose module counts its imports in `sys`."""
    (tmp_path / "fake_trainer").mkdir()
    (tmp_path / "fake_trainer/__init__.py").write_text("")
    (tmp_path / "fake_trainer/env.py").write_text(
        "import sys\nsys.fake_imports = getattr(sys, 'fake_imports', 0) + 1\n"
        "class Env:\n    pass\nclass Other:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "fake_imports", 0, raising=False)
    yield "fake_trainer.env"
    for name in ("fake_trainer.env", "fake_trainer"):
        sys.modules.pop(name, None)


class Ours:
    pass


def test_action_runs_once_the_module_is_there(trainer):
    seen = []
    after_import(trainer, seen.append)
    assert seen == []
    module = importlib.import_module(trainer)
    assert seen == [module]
    assert hasattr(module, "Env")
    after_import(trainer, seen.append)
    assert seen == [module, module]


def test_class_is_replaced_without_importing_its_module(trainer):
    replace_class(trainer, "Env", lambda: Ours)
    from fake_trainer.env import Env

    assert Env is Ours
    assert sys.fake_imports == 0


def test_other_names_come_from_the_original_which_is_loaded_in_the_given_context(trainer):
    entered = []

    @contextmanager
    def around():
        entered.append(sys.fake_imports)
        yield
        entered.append(sys.fake_imports)

    replace_class(trainer, "Env", lambda: Ours, around=around)
    from fake_trainer.env import Env, Other

    assert Other.__module__ == trainer
    assert Env is Ours
    assert entered == [0, 1]
    with pytest.raises(AttributeError):
        sys.modules[trainer].Missing  # noqa: B018
    assert sys.fake_imports == 1


def test_module_that_is_already_imported_gets_the_class(trainer):
    module = importlib.import_module(trainer)
    replace_class(trainer, "Env", lambda: Ours)
    assert module.Env is Ours


def test_second_replacement_wins(trainer):
    replace_class(trainer, "Env", lambda: object)
    replace_class(trainer, "Env", lambda: Ours)
    from fake_trainer.env import Env

    assert Env is Ours


def test_a_function_is_wrapped_once_and_keeps_its_name():
    class Worker:
        def play(self, number):
            """Plays."""
            return number

    def louder(play):
        return lambda self, number: 10 * play(self, number)

    for _ in range(2):
        wrap_once(Worker, "play", "_test_mark", louder)
    assert Worker().play(2) == 20
    assert (Worker.play.__name__, Worker.play.__doc__) == ("play", "Plays.")
    wrap_once(Worker, "play", "_another_mark", louder)
    assert Worker().play(2) == 200
