"""Steps of sampling replayed from one CUDA graph: a step is some hundred small kernels, whose launches cost more than
their work at small sizes.

``StepDecoder.step_at`` is the step without Python numbers in it; its equality with ``step`` is tested on a CPU. The
recording around it needs a CUDA device and has not been run on one yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm.generate import StepDecoder
from llm.model import PrefixLM
from llm.sequence import Layout

WARM_UPS = 3  # before recording, as torch.cuda.graph asks for


class GraphedStepDecoder(StepDecoder):
    """A ``StepDecoder`` whose steps are recorded once and replayed.

    Args:
        model: the language model, on a CUDA device.
        layout: the sequence.
        readable: as in ``StepDecoder``.
        batch_size: b.

    Raises:
        ValueError: if the model is on another kind of device.
    """

    def __init__(self, model: PrefixLM, layout: Layout, readable: Tensor | None, batch_size: int):
        device = model.text_proj.weight.device
        if device.type != "cuda":
            raise ValueError(f"CUDA graphs need a model on a CUDA device, this one is on {device}; use StepDecoder")
        super().__init__(model, layout, readable, batch_size)
        self._ids = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def step(self, ids: Tensor) -> Tensor:
        """Run the next place.

        Args:
            ids: (b,) ids that stand there.

        Returns:
            (b, d) hidden vectors, overwritten by the next step.
        """
        self._ids.copy_(ids)
        self._position.fill_(self.cache.position)
        if self._graph is None:
            self._record()
        assert self._graph is not None, "recorded above"
        self._graph.replay()
        self.cache.advance(1)
        return self._hidden

    def _record(self) -> None:
        """Run the present place until all is set up, then record it; each run writes the same keys and values."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.step_at(self._ids, self._position)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._hidden = self.step_at(self._ids, self._position)
