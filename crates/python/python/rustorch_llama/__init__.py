"""Batched inference of Llama-family models from GGUF files, with the names of vLLM's offline API.

>>> from rustorch_llama import LLM, SamplingParams
>>> llm = LLM("demo", max_model_len=256, device="cpu")
>>> [output] = llm.generate("Once upon a", SamplingParams(temperature=0, max_tokens=2))
>>> output.outputs[0].text
' time,'
"""

from ._batch import BatchOptions
from ._requests import row_seed
from ._rustorch import BatchSummary, EngineError
from .async_llm import AsyncLLM
from .llm import LLM
from .outputs import (
    CompletionOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    Logprob,
    RequestOutput,
)
from .sampling_params import (
    GuidedDecodingParams,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)

__all__ = [
    "LLM",
    "AsyncLLM",
    "BatchOptions",
    "BatchSummary",
    "CompletionOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "EngineError",
    "GuidedDecodingParams",
    "Logprob",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
    "row_seed",
]
