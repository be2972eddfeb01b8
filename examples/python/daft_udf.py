"""Rows through Daft, each process with a model: `python daft_udf.py requests.jsonl answers --model MODEL.gguf`.

Rows and answers are those of ray_data.py. With `--ray` the rows run on a Ray cluster.
"""

import argparse

import daft

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("input")
parser.add_argument("output")
parser.add_argument("--model", default="demo")
parser.add_argument("--device", default="auto")
parser.add_argument("--processes", type=int, default=1)
parser.add_argument("--gpus", type=float, default=0, help="of each process")
parser.add_argument("--batch-size", type=int, default=512, help="rows in a call: several times the sequences that run together")
parser.add_argument("--ray", action="store_true")
arguments = parser.parse_args()
if arguments.ray:
    daft.set_runner_ray()


@daft.cls(max_concurrency=arguments.processes, gpus=arguments.gpus, use_process=True)
class Answer:
    """A model, loaded once by each process."""

    def __init__(self, model: str, device: str) -> None:
        from rustorch_llama import LLM

        self.llm = LLM(model, device=device, max_model_len=512)

    @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=arguments.batch_size)
    def text(
        self, custom_id: daft.Series, prompt: daft.Series, max_tokens: daft.Series, temperature: daft.Series
    ) -> list[str]:
        from rustorch_llama import SamplingParams

        params = [SamplingParams(max_tokens=m, temperature=t) for m, t in zip(max_tokens.to_pylist(), temperature.to_pylist())]
        # The ids give each row its seed.
        outputs = self.llm.generate(prompt.to_pylist(), params, use_tqdm=False, ids=custom_id.to_pylist())
        return [output.outputs[0].text for output in outputs]


rows = daft.read_json(arguments.input)
text = Answer(arguments.model, arguments.device).text(rows["custom_id"], rows["prompt"], rows["max_tokens"], rows["temperature"])
rows.select(rows["custom_id"], text.alias("text")).write_json(arguments.output)
