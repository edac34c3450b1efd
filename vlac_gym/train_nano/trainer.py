"""Trains the nano critic from recorded episodes: `train_nano`, `knowledge_of`."""

__all__ = ["knowledge_of", "train_nano"]

import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlac_gym.critic.engines.chat_prompts import PromptEncoder
from vlac_gym.critic.knowledge import write_knowledge
from vlac_gym.critic.nano.factory import CHECKPOINT
from vlac_gym.critic.vlac.prompts import SYSTEM_PROMPT, done_prompt, pair_prompt
from vlac_gym.critic.vlac.tiny_checkpoint import ModelSizes, build_config, save_checkpoint, train_tokenizer
from vlac_gym.data.episodes import Episode
from vlac_gym.errors import ConfigError
from vlac_gym.extras import needs
from vlac_gym.files.output_folder import claim_folder
from vlac_gym.train_nano.batches import FrameBank, PromptBook, largest_picture
from vlac_gym.train_nano.episodes import TrainingEpisodes, read_training_episodes
from vlac_gym.train_nano.labels import FrameTable, Sampler
from vlac_gym.train_nano.losses import done_loss, pair_loss, reply_logits
from vlac_gym.train_nano.recipe import NANO_NUMBER_LIMIT, NANO_SIZES, TrainRecipe
from vlac_gym.train_nano.rewording import Wordings
from vlac_gym.train_nano.validation import validate
from vlac_gym.training.device import pick_device
from vlac_gym.types import CriticKnowledge

with needs("Training nano", "vlac"):
    import torch
    import transformers

logger = logging.getLogger(__name__)

_FILES = (
    "checkpoint",
    "log.jsonl",
    "state.pt",
    ".state.pt.tmp",
    "metrics.jsonl",
    "tensorboard",
    "wandb",
    *("card", "card_before", "comparison.json", "comparison.html"),  # of `vlac-gym train-critic --held-out`
)
_MAY_CHANGE = ("steps", "max_seconds", "save_every_s", "validate_every")
"""Settings that may differ between a run and its continuation."""


def train_nano(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    recipe: TrainRecipe | None = None,
    *,
    sizes: ModelSizes = NANO_SIZES,
    device: str | None = None,
    resume: bool = False,
    verdicts: Mapping[str, int | None] | None = None,
    on_step: Callable[[int], None] | None = None,
    on_validation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path:
    """Trains on every episode in `data` but the validation init states.

    Writes `log.jsonl`, `state.pt` (to resume) and `checkpoint/`, the best validated weights in the native
    InternVL format, float16, with what the critic knows (`knowledge_of`) in `knowledge.json`.

    Args:
        data: Folder of episodes, as `vlac-gym collect` writes them, or several: `TrainRecipe.fresh_share` weighs those
            after the first.
        out: Folder of the run, new or empty unless `resume`; nobody else may write there meanwhile.
        recipe: Settings; the defaults are those of the shipped critic's first stage.
        sizes: Sizes of the model.
        device: `cuda`, `cpu`; the first GPU by default.
        resume: Continue the run that `out` holds. Only its length and how often it is saved may change.
        verdicts: A person's labels for some of the episodes; see `vlac_gym.data.verdicts`.
        on_step: Called after each step with the steps done so far, and once before the first.
        on_validation: Called after each validation with the step and the numbers of its line in `log.jsonl`.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: No episodes, a split that leaves a part empty, a device that is not there, an `out` in use, or a
            run to resume that was begun with another recipe.
    """
    recipe = recipe or TrainRecipe()
    chosen = pick_device(device)
    begins_with = _checkpoint(recipe.start_from)
    folders = [Path(data)] if isinstance(data, str | Path) else [Path(folder) for folder in data]
    episodes = read_training_episodes(folders, recipe.val_init_states, verdicts, all_views=recipe.all_views)
    with claim_folder(Path(out), resume=resume, ours=_FILES) as folder:
        trainer = _Trainer(episodes, begins_with, folder, recipe, sizes, chosen)
        trainer.on_validation = on_validation
        trainer.run(on_step or (lambda _: None))
    return trainer.checkpoint_folder


class _Trainer:
    """State of one run."""

    def __init__(
        self,
        episodes: TrainingEpisodes,
        begins_with: Path | None,
        out: Path,
        recipe: TrainRecipe,
        sizes: ModelSizes,
        device: torch.device,
    ) -> None:
        self._recipe, self._out, self._device = recipe, out, device
        self.checkpoint_folder = out / "checkpoint"
        self.on_validation: Callable[[int, Mapping[str, float]], None] | None = None
        torch.manual_seed(recipe.seed)
        train, val = episodes.train, episodes.validation
        self._train_table, self._val_table = FrameTable.build(train), FrameTable.build(val)
        self._knows = knowledge_of(train)
        self._tokenizer, model = _start(begins_with, self._train_table.tasks, sizes)
        config = model.config
        self._model = model.to(device).train()
        self._ema = copy.deepcopy(self._model).requires_grad_(False)
        encoder = PromptEncoder(
            self._tokenizer, config.image_token_id, config.image_seq_length, config.text_config.vocab_size
        )
        self._wordings = Wordings(self._train_table.tasks, recipe.reword_share, recipe.seed)
        self._prompts = PromptBook(encoder, self._tokenizer, self._wordings.texts, device)
        # Validation asks in the task's words, and in a wording that training never uses.
        held_out = dict(zip(self._train_table.tasks, self._wordings.held_out))
        texts = [[task, held_out.get(task, task)] for task in self._val_table.tasks]
        self._val_prompts = PromptBook(encoder, self._tokenizer, [own[:1] for own in texts], device)
        self._reworded_val_prompts = PromptBook(encoder, self._tokenizer, [own[1:] for own in texts], device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        frame_size = largest_picture([*train, *val])
        self._bank = FrameBank(train, frame_size, sizes.image_size, recipe, device, dtype)
        self._val_bank = FrameBank(val, frame_size, sizes.image_size, recipe, device, dtype)
        rng = np.random.default_rng(recipe.seed)
        self._sampler = Sampler(self._train_table, recipe, rng, episodes.num_old)
        self._optimizer = _optimizer(self._model, recipe)
        self._step, self._best = 0, -math.inf
        self._resume()
        logger.info(
            "%d train frames, %d validation frames, %.2f M parameters, from step %d",
            len(self._bank),
            len(self._val_bank),
            sum(p.numel() for p in self._model.parameters()) / 1e6,
            self._step,
        )

    def run(self, on_step: Callable[[int], None]) -> None:
        """Trains to the last step, or until the time is up."""
        start = saved = time.monotonic()
        on_step(self._step)
        losses: list[torch.Tensor] = []
        while self._step < self._recipe.steps:
            losses.append(self._train_step())
            self._step += 1
            on_step(self._step)
            now = time.monotonic()
            if self._step % self._recipe.validate_every == 0 or self._step == self._recipe.steps:
                self._validate(losses, now - start)
                losses = []
            is_late = self._recipe.max_seconds is not None and now - start > self._recipe.max_seconds
            if is_late or now - saved > self._recipe.save_every_s or self._step == self._recipe.steps:
                self._save_state()
                saved = now
            if is_late:
                logger.info("time is up at step %d; run again to resume", self._step)
                return

    def _train_step(self) -> torch.Tensor:
        """Done loss and pair loss (2,), on the device: to read them here would wait for it at every step."""
        recipe = self._recipe
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(self._step, recipe)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            done = self._done_loss()
            pair = self._pair_loss()
        loss = done + recipe.pair_weight * pair
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        decay = min(recipe.ema_decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            averages, weights = list(self._ema.parameters()), list(self._model.parameters())
            torch._foreach_lerp_(averages, weights, 1 - decay)
        return torch.stack([done.detach(), pair.detach()]).float()

    def _done_loss(self) -> torch.Tensor:
        rows, tasks, answers = self._sampler.draw_done(self._recipe.done_batch)
        batch = self._prompts.done_batch(tasks, answers, self._wordings.draw(tasks))
        return done_loss(reply_logits(self._model, batch, self._bank.pictures(rows, augment=True)), batch)

    def _pair_loss(self) -> torch.Tensor:
        draw = self._sampler.draw_pairs(self._recipe.pair_batch)
        batch = self._prompts.pair_batch(draw.task, draw.percent, self._wordings.draw(draw.task))
        both = torch.stack(self._bank.same_augmentation([draw.before, draw.after]), dim=1).flatten(0, 1)
        logits = reply_logits(self._model, batch, both)
        return pair_loss(logits, batch, self._prompts.number_ids, self._recipe.number_sigma)

    def _validate(self, losses: list[torch.Tensor], seconds: float) -> None:
        scores = validate(self._ema, self._val_bank, self._val_table, self._val_prompts)
        done, pair = torch.stack(losses).mean(dim=0).tolist()
        row = {"step": self._step, "seconds": round(seconds, 1), "done_loss": done, "pair_loss": pair}
        score, facts = scores.score, {"step": self._step, "validation": scores.as_dict()}
        row |= scores.as_dict()
        if self._recipe.reword_share:
            reworded = validate(self._ema, self._val_bank, self._val_table, self._reworded_val_prompts)
            score = (score + reworded.score) / 2
            facts["reworded_validation"] = reworded.as_dict()
            row |= {f"reworded_{name}": value for name, value in reworded.as_dict().items()}
        self._log(row)
        if score > self._best:
            self._best = score
            self._save_checkpoint(facts)

    def _save_checkpoint(self, facts: dict[str, Any]) -> None:
        model = copy.deepcopy(self._ema).to("cpu", torch.float16)
        save_checkpoint(self.checkpoint_folder, model, self._tokenizer)
        write_knowledge(self.checkpoint_folder, self._knows)
        (self.checkpoint_folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")

    def _log(self, row: dict[str, float]) -> None:
        logger.info(" ".join(f"{key}={value:.4g}" for key, value in row.items()))
        with (self._out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: float(value) for key, value in row.items()}) + "\n")

        if self.on_validation is not None:
            self.on_validation(self._step, row)

    def _save_state(self) -> None:
        state = {
            "recipe": json.dumps(asdict(self._recipe)),
            "step": self._step,
            "best": self._best,
            "model": self._model.state_dict(),
            "ema": self._ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "sampler": json.dumps(self._sampler.state()),
            "wordings": json.dumps(self._wordings.state()),
            "augmentation": self._bank.state(),
        }
        temporary = self._out / ".state.pt.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self._out / "state.pt")

    def _resume(self) -> None:
        path = self._out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        self._check_same_recipe(json.loads(state["recipe"]))
        try:
            self._model.load_state_dict(state["model"])
        except RuntimeError as e:
            raise ConfigError(f"{path} holds a model of other sizes or tasks. Choose another --out.") from e
        self._ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._sampler.restore(json.loads(state["sampler"]))
        self._wordings.restore(json.loads(state["wordings"]))
        self._bank.restore(state["augmentation"])
        self._step, self._best = state["step"], state["best"]

    def _check_same_recipe(self, before: dict[str, Any]) -> None:
        now, default = (json.loads(json.dumps(asdict(recipe))) for recipe in (self._recipe, TrainRecipe()))
        # What is newer than the run had no effect on it, as its default has none.
        before = default | before
        changed = [
            f"{name} was {before[name]!r}, is {value!r}"
            for name, value in now.items()
            if name not in _MAY_CHANGE and before[name] != value
        ]
        if changed:
            raise ConfigError(
                f"Can't continue the training in {self._out} with another recipe: {'; '.join(changed)}."
            )


def knowledge_of(episodes: Sequence[Episode]) -> CriticKnowledge:
    """What a critic knows that is trained on the first view of these episodes.

    The renderer is left open where an episode does not tell its own.
    """
    renderers = [episode.meta.details.get("renderer") for episode in episodes]
    return CriticKnowledge(
        tasks=_unique(episode.meta.task for episode in episodes),
        task_suites=_unique(episode.meta.task_suite for episode in episodes),
        views=_unique(next(iter(episode.frames)) for episode in episodes),
        inputs=(),
        renderers=None if None in renderers else _unique(str(name) for name in renderers),
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))


def _checkpoint(name: str | None) -> Path | None:
    folder = CHECKPOINT if name == "nano" else None if name is None else Path(name)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"Expected start_from as a checkpoint folder, or 'nano', got {name!r}.")
    return folder


def _start(folder: Path | None, tasks: tuple[str, ...], sizes: ModelSizes) -> tuple[Any, Any]:
    """Tokenizer and model in float32, from a checkpoint or anew."""
    if folder is None:
        tokenizer = _tokenizer(tasks)
        return tokenizer, transformers.InternVLForConditionalGeneration(build_config(sizes, tokenizer))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.InternVLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return tokenizer, model


def _tokenizer(tasks: tuple[str, ...]) -> Any:
    texts = [SYSTEM_PROMPT, "system\nuser\nassistant\n"]
    for task in tasks:
        texts += [done_prompt(task), pair_prompt(task).replace("<image>", ""), task]
    return train_tokenizer(texts, number_limit=NANO_NUMBER_LIMIT, vocab_size=896)


def _optimizer(model: Any, recipe: TrainRecipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _schedule(step: int, recipe: TrainRecipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
