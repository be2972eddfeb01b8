"""A worker for a job of parts that loads its model once: `python job_worker.py JOB --worker 0/4 --model MODEL.gguf`.

Start workers 0/4 to 3/4 on as many machines that see the folder. One that was killed goes on when it is started again.
"""

import argparse
import json
from pathlib import Path

from rustorch_llama import LLM

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("job", type=Path)
parser.add_argument("--worker", default="0/1", help="I/N: parts I, I + N, I + 2N, ..")
parser.add_argument("--model", default="demo")
parser.add_argument("--device", default="auto")
parser.add_argument("--max-model-len", type=int)
parser.add_argument("--max-num-seqs", type=int)
parser.add_argument("--prompt-chunk", type=int)
arguments = vars(parser.parse_args())
job = arguments.pop("job")
worker, workers = map(int, arguments.pop("worker").split("/"))

llm = LLM(**arguments)
for part in range(worker, len(json.loads((job / "job.json").read_bytes())["parts"]), workers):
    summary = llm.run_job_part(job, part, use_tqdm=False)
    print(f"part {part}:", "was done" if summary is None else f"{summary.results} results", flush=True)
