"""Compares the speed of rustorch and llama.cpp on one GGUF file with random weights.

For each format, `rustorch bench --save` writes the file. Then both engines run the same cells (batch x prompt length) with
the same threads in five rounds; the engines take turns in going first. A figure is the median of the rounds, with the lowest
and the highest; the ratio is that of the medians. Decoding is measured by a round's median step, a prompt by its whole time.

    python3 -m venv venv
    CMAKE_ARGS=-DGGML_NATIVE=ON venv/bin/pip install --no-binary llama-cpp-python -r bench/requirements.txt
    cargo build --release
    venv/bin/python bench/compare.py --out bench/results

Writes NAME.md, NAME.json and NAME.svg into --out.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the back end is chosen first)

HERE = pathlib.Path(__file__).resolve().parent
OURS, PEER = "rustorch", "llama.cpp"


def main():
    args = arguments()
    results = {"machine": machine(args), "shape": args.shape, "rounds": args.rounds, "formats": {}}
    with neighbours(args.busy), tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        for name in args.formats.split(","):
            model = pathlib.Path(folder) / f"{args.shape}-{name}.gguf"
            run([args.rustorch, "bench", "--synthetic", f"{args.shape}:{name}", "--save", model])
            results["formats"][name] = compare(args, model, results["machine"])
            model.unlink()
    write(args, results)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rustorch", default=HERE.parent / "target/release/rustorch", type=pathlib.Path)
    parser.add_argument("--shape", default="tinyllama-1.1b")
    parser.add_argument("--formats", default="q4_k_m,q8_0", help="comma-separated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", default="1,4,8,16", help="decoded together, comma-separated")
    parser.add_argument("--length", type=int, default=64, help="prompt tokens before decoding")
    parser.add_argument("--prompts", default="64,512", help="lengths of single prompts, comma-separated")
    parser.add_argument("--steps", type=int, default=24, help="decode steps of a cell")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="neighbours that keep a core busy each while measuring")
    parser.add_argument("--scratch", help="where the model files are written (default: the system's place)")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--name", default="cpu", help="of the results' files")
    return parser.parse_args()


@contextlib.contextmanager
def neighbours(count):
    """Runs `count` processes that keep a core busy each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def run(command):
    """The command's standard output."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    return done.stdout


def machine(args):
    git = lambda *words: run(["git", "-C", HERE, *words]).strip()  # noqa: E731
    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "cpu": cpu_name(),
        "threads": args.threads,
        "busy_neighbours": args.busy,
        "system": f"{platform.system()} {platform.release()}",
        OURS: git("rev-parse", "--short", "HEAD") + changed,
    }


def cpu_name():
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def compare(args, model, about):
    """Rates of both engines by figure: {figure: {engine: [a rate a round]}}."""
    rates = {}
    for round_idx in range(args.rounds):
        engines = [(OURS, ours), (PEER, peer)]
        for engine, measure in engines if round_idx % 2 == 0 else reversed(engines):
            for figure, rate in measure(args, model, about).items():
                rates.setdefault(figure, {OURS: [], PEER: []})[engine].append(rate)
        print(f"{model.stem}: round {round_idx + 1} of {args.rounds}", file=sys.stderr)
    return rates


def ours(args, model, about):
    bench = [args.rustorch, "bench", "-m", model, "--threads", args.threads, "-r", 1, "--json"]
    decodes = json.loads(run([*bench, "-b", args.batch, "-l", args.length, "-n", args.steps]))
    prompts = json.loads(run([*bench, "-b", 1, "-l", args.prompts, "-n", 1]))
    about.setdefault("peaks", []).append(decodes["machine"]["peaks"])
    rates = {}
    for cell in decodes["cells"]:
        rates[f"decode, batch {cell['batch']}"] = cell["batch"] / cell["decode"]["ms_per_token"]["p50"] * 1e3
    for cell in prompts["cells"]:
        rates[f"prompt, {cell['length']} tokens"] = cell["prompt"]["tokens_per_s"]
    return rates


def peer(args, model, about):
    decodes = [f"{batch}x{args.length}x{args.steps}" for batch in args.batch.split(",")]
    prompts = [f"1x{length}x0" for length in args.prompts.split(",")]
    cells = ",".join(decodes + prompts)
    script = [sys.executable, HERE / "peer_llama_cpp.py", model, "--threads", args.threads, "--cells", cells]
    result = json.loads(run(script))
    about[PEER] = f"llama-cpp-python {result['version']} ({result['system']})"
    rates = {}
    for cell in result["cells"]:
        if cell["step_seconds"]:
            rates[f"decode, batch {cell['batch']}"] = cell["batch"] / statistics.median(cell["step_seconds"])
        else:
            rates[f"prompt, {cell['length']} tokens"] = cell["prompt_tokens_per_s"]
    return rates


def write(args, results):
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / args.name
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = report(args, results)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    plot(args, results, path.with_suffix(".svg"))
    print(text)


def report(args, results):
    about = results["machine"]
    peak = lambda key: statistics.median(peaks[key] for peaks in about["peaks"]) / 1e9  # noqa: E731
    about_machine = f"{about['cpu']}, {about['threads']} threads, {about['busy_neighbours']} busy neighbours"
    lines = [
        f"{results['shape']}, random weights; tokens/s, median of {results['rounds']} rounds (lowest to highest).",
        f"Decoding after prompts of {args.length} tokens.",
        "",
        f"- {about_machine}, {about['system']}; peaks: {peak('read_bytes_per_s'):.0f} GB/s read, "
        f"{peak('quantized_macs_per_s'):.0f} G multiply-adds/s of bytes",
        f"- rustorch {about[OURS]}",
        f"- {about[PEER]}",
    ]
    for name, rates in results["formats"].items():
        lines += ["", f"| {name} | {OURS} | {PEER} | ratio |", "| --- | --- | --- | --- |"]
        for figure, engines in rates.items():
            mine, other = engines[OURS], engines[PEER]
            ratio = statistics.median(mine) / statistics.median(other)
            lines.append(f"| {figure} | {spread(mine)} | {spread(other)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def spread(rates):
    return f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"


def plot(args, results, path):
    formats = results["formats"]
    figure, axes = plt.subplots(1, len(formats), figsize=(4.6 * len(formats), 4), sharey=True, squeeze=False)
    batches = [int(batch) for batch in args.batch.split(",")]
    for axis, (name, rates) in zip(axes[0], formats.items()):
        for engine, color in ((OURS, "#c2410c"), (PEER, "#475569")):
            of_batch = [rates[f"decode, batch {batch}"][engine] for batch in batches]
            medians = [statistics.median(rates) for rates in of_batch]
            below = [median - min(rates) for median, rates in zip(medians, of_batch)]
            above = [max(rates) - median for median, rates in zip(medians, of_batch)]
            axis.errorbar(batches, medians, [below, above], marker="o", capsize=3, color=color, label=engine)
        axis.set_title(f"{results['shape']} {name}", fontsize=11)
        axis.set_xscale("log", base=2)
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.set_xlabel("sequences decoded together")
        axis.grid(color="#e2e8f0")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("tokens/s, all sequences together")
    axes[0][0].legend(frameon=False)
    figure.suptitle(f"{results['machine']['cpu']}, {results['machine']['threads']} threads", fontsize=9, color="#475569")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
