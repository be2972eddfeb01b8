"""Rows through Spark, each Python worker with a model: `spark-submit spark.py requests.jsonl answers MODEL.gguf`.

Rows and answers are those of ray_data.py. A task that fails is started again by Spark, and gives the same rows.
"""

import sys
from typing import Iterator

import pandas as pd
from pyspark.sql import SparkSession


def answer(batches: Iterator[pd.DataFrame], model: str) -> Iterator[pd.DataFrame]:
    """The answers of a partition, with a model that is loaded once for it."""
    from rustorch_llama import LLM, SamplingParams

    llm = LLM(model, max_model_len=512)
    for rows in batches:
        params = [
            SamplingParams(max_tokens=int(m), temperature=float(t)) for m, t in zip(rows["max_tokens"], rows["temperature"])
        ]
        # The ids give each row its seed.
        outputs = llm.generate(list(rows["prompt"]), params, use_tqdm=False, ids=list(rows["custom_id"]))
        yield pd.DataFrame({"custom_id": rows["custom_id"], "text": [output.outputs[0].text for output in outputs]})


if __name__ == "__main__":
    source, target, model = sys.argv[1:4]
    spark = SparkSession.builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", 512).getOrCreate()
    rows = spark.read.json(source)
    rows.mapInPandas(lambda batches: answer(batches, model), "custom_id string, text string").write.json(target)
