"""lm-eval itself over tasks of our own: log-probabilities through `local-completions`, texts through `local-chat-completions`,
with tokens from the server. Run by .ci/full, since the package brings 155 MB; test_lm_eval.py asks for the same without it.

    RUSTORCH=target/release/rustorch target/clients/bin/python crates/server/tests/clients/lm_eval_run.py
"""

import pathlib
import tempfile

import lm_eval
from conftest import start
from lm_eval.tasks import TaskManager

TASKS = pathlib.Path(__file__).parent / "lm_eval_tasks"


def evaluate(model, path, task, server, folder, **arguments):
    model_args = {"base_url": f"{server.url}/v1/{path}", "model": "demo", "num_concurrent": 2, **arguments}
    manager = TaskManager(include_path=folder, include_defaults=False)
    evaluated = lm_eval.simple_evaluate(
        model=model, model_args=model_args, tasks=[task], task_manager=manager, apply_chat_template="chat" in model,
        bootstrap_iters=0, log_samples=True,
    )
    return evaluated["results"][task], evaluated["samples"][task]


def main():
    server = start()
    with tempfile.TemporaryDirectory() as folder:
        # A task names its data by an absolute path.
        for task in TASKS.glob("*.yaml"):
            (pathlib.Path(folder) / task.name).write_text(task.read_text().replace("FOLDER", str(TASKS)))
        results, samples = evaluate(
            "local-completions", "completions", "demo_choices", server, folder, tokenizer_backend="remote"
        )
        assert results["acc,none"] == 1.0, results
        assert len(samples) == 2
        _, samples = evaluate("local-chat-completions", "chat/completions", "demo_stories", server, folder)
        texts = [sample["resps"][0][0] for sample in samples]
        assert len(texts) == 2 and all(text and "." not in text and "\n" not in text for text in texts), texts
    assert server.stop() == 0
    print(f"lm-eval: all choices right, texts {texts}")


if __name__ == "__main__":
    main()
