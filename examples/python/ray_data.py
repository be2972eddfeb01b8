"""Rows through Ray Data, each actor with a model: `python ray_data.py requests.jsonl answers --model MODEL.gguf --actors 8`.

A row has a `custom_id`, a `prompt` and perhaps `max_tokens` and `temperature`; `answers` becomes a folder of JSON lines with a
`text` for each. A row's answer is the same in any batch, on any actor and in any retry, so actors may be killed at any time.
"""

import argparse
from typing import Any

import ray

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("input")
parser.add_argument("output")
parser.add_argument("--model", default="demo")
parser.add_argument("--device", default="auto")
parser.add_argument("--actors", type=int, default=1)
parser.add_argument("--gpus", type=float, default=0, help="of each actor")
parser.add_argument("--batch-size", type=int, default=512, help="rows in a call: several times the sequences that run together")


class Answer:
    """A model, loaded once by each actor."""

    def __init__(self, model: str, device: str) -> None:
        from rustorch_llama import LLM

        self.llm = LLM(model, device=device, max_model_len=512)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from rustorch_llama import SamplingParams

        params = [
            SamplingParams(max_tokens=int(max_tokens), temperature=float(temperature))
            for max_tokens, temperature in zip(batch["max_tokens"], batch["temperature"])
        ]
        # The ids give each row its seed.
        outputs = self.llm.generate(list(batch["prompt"]), params, use_tqdm=False, ids=list(batch["custom_id"]))
        return {"custom_id": batch["custom_id"], "text": [output.outputs[0].text for output in outputs]}


if __name__ == "__main__":
    arguments = parser.parse_args()
    rows = ray.data.read_json(arguments.input, lines=True, override_num_blocks=4 * arguments.actors)
    # Ray Data starts an actor that dies again, and answers its batch again.
    answers = rows.map_batches(
        Answer,
        fn_constructor_args=(arguments.model, arguments.device),
        batch_size=arguments.batch_size,
        num_gpus=arguments.gpus,
        compute=ray.data.ActorPoolStrategy(size=arguments.actors),
        # Less than all cores, which the tasks that read need too.
        num_cpus=0.5,
    )
    answers.write_json(arguments.output)
