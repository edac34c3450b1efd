"""OpenVLA-OFT of 7.5 billion weights in SimpleVLA-RL's classes, of tensors without memory: `FakeOpenVLA`."""

from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


class FakeOpenVLA:
    """The model in bfloat16, as FSDP's mixed precision computes with it, on a CPU that computes nothing."""

    def __init__(self) -> None:
        from transformers.modeling_utils import no_init_weights
        from verl.utils.vla_utils.openvla_oft.configuration_prismatic import OpenVLAConfig
        from verl.utils.vla_utils.openvla_oft.modeling_prismatic import OpenVLAForActionPrediction

        config = OpenVLAConfig(
            vision_backbone_id="dinosiglip-vit-so-224px",
            llm_backbone_id="llama2-7b-pure",
            pad_token_id=32000,
            use_proprio=False,
            proprio_dim=7,
            text_config={"vocab_size": 32064, "pad_token_id": 32000},
        )
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        torch.set_default_dtype(torch.bfloat16)
        try:
            # timm reads numbers out of this one tensor.
            with (
                self._mode,
                no_init_weights(),
                patch.object(torch, "linspace", lambda *a: list(np.linspace(*a))),
            ):
                self.model = OpenVLAForActionPrediction(config).train()
        finally:
            torch.set_default_dtype(torch.float32)

    def kept_bytes(self, tokens: int) -> tuple[int, int]:
        """What autograd keeps of one picture in towers and projector, and of a sequence in the language model.

        Args:
            tokens: Length of the sequence, the picture's 256 patches included.
        """
        sizes: dict[int, int] = {}
        kept = []  # Alive, so that no two have the same storage.
        weights = {weight.untyped_storage()._cdata for weight in self.model.parameters()}

        def note(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                sizes[storage._cdata] = storage.nbytes()
                kept.append(tensor)
            return tensor

        model = self.model
        with self._mode, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            pixels = torch.zeros(1, 6, 224, 224, dtype=torch.bfloat16)
            patches = model.projector(model.vision_backbone(pixels))
            of_picture = sum(sizes.values())
            words = model.get_input_embeddings()(torch.ones(1, tokens - patches.shape[1], dtype=torch.long))
            model.language_model(inputs_embeds=torch.cat([patches, words], 1), use_cache=False)
        return of_picture, sum(sizes.values()) - of_picture
