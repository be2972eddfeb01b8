"""Measures what long prompts do to other requests of a server.

Some streams generate undisturbed; then long prompts arrive, and after them a short request. Printed are the short request's
time to its first token, the times between tokens of the streams before and after the prompts' arrival, and the tokens per
second of both together (prompt tokens and generated ones, from the arrival of the prompts to their last first token).

    cargo build --release
    python3 bench/load.py -m MODEL.gguf target/release/rustorch [OTHER/rustorch ..]

Several programs take turns, round by round, so that what else runs on the machine disturbs each alike; figures are medians
over the rounds, with the lowest and the highest. --args passes options to the server, such as "--itl-target 20"; with
--targets the curve of several targets is measured, as is of use on a GPU:

    python3 bench/load.py -m MODEL.gguf --args "--device gpu" --targets 0,10,20,50,100,200 target/release/rustorch

Needs Python 3.9 and no packages.
"""

import argparse
import http.client
import json
import random
import shlex
import statistics
import subprocess
import threading
import time

FIGURES = [
    ("first_token_s", "short request, first token, s"),
    ("undisturbed_p50_ms", "between tokens, undisturbed, p50, ms"),
    ("undisturbed_p99_ms", "the same, p99"),
    ("disturbed_p50_ms", "between tokens, with prompts, p50, ms"),
    ("disturbed_p99_ms", "the same, p99"),
    ("tokens_per_s", "tokens/s, prompts and streams"),
    ("prompt_tokens_per_s", "tokens/s, prompts alone"),
]


def main():
    args = arguments()
    targets = args.targets.split(",") if args.targets else [None]
    cases = [(program, target) for program in args.programs for target in targets]
    rounds = {case: [] for case in cases}
    for number in range(args.rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            rounds[case].append(measure(args, *case))
    if args.json:
        print(json.dumps([{"program": p, "itl_target": t, "rounds": rounds[p, t]} for p, t in cases]))
        return
    heads = [program if target is None else f"{program} --itl-target {target}" for program, target in cases]
    print("| " + " | ".join([f"median of {args.rounds} (lowest to highest)"] + heads) + " |")
    print("| --- " * (len(cases) + 1) + "|")
    for key, label in FIGURES:
        cells = [[figures[key] for figures in rounds[case]] for case in cases]
        print("| " + " | ".join([label] + [spread(values) for values in cells]) + " |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("-m", "--model", default="demo")
    parser.add_argument("--args", default="", help="more options of the server")
    parser.add_argument("--targets", help="measure with each of these --itl-target")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=3000)
    parser.add_argument("--short-tokens", type=int, default=32)
    parser.add_argument("--undisturbed", type=float, default=4.0, help="seconds before the prompts arrive")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds from the prompts to the short request")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=256, help="prompts are random tokens below this")
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measure(args, program, target):
    command = [program, "serve", "-m", args.model, "--port", str(args.port)]
    command += ["--batch-size", str(args.batch_size), "--ctx", str(args.ctx)] + shlex.split(args.args)
    command += [] if target is None else ["--itl-target", target]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(args.port, server)
        return run(args)
    finally:
        server.terminate()
        server.wait()


def wait_until_ready(port, server):
    while server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server ended with {server.returncode}")


def run(args):
    rng = random.Random(1)
    tokens = lambda count: [rng.randrange(3, args.vocab) for _ in range(count)]
    streams = [Stream(args, tokens(16), args.ctx - 16) for _ in range(args.streams)]
    wait_for_all(streams)
    undisturbed_from = time.monotonic()
    time.sleep(args.undisturbed)
    disturbed_from = time.monotonic()
    prompts = [Stream(args, tokens(args.prompt_tokens), 1) for _ in range(args.prompts)]
    time.sleep(args.delay)
    short = Stream(args, tokens(args.short_tokens), 1)
    wait_for_all(prompts + [short])
    end = max(stream.times[0] for stream in prompts + [short])
    for stream in streams:
        stream.stop()
    for stream in streams + prompts + [short]:
        stream.thread.join()
    undisturbed = between_tokens(streams, undisturbed_from, disturbed_from)
    disturbed = between_tokens(streams, disturbed_from, end)
    generated = sum(disturbed_from < at <= end for stream in streams for at in stream.times)
    prompt_tokens = args.prompts * args.prompt_tokens + args.short_tokens
    return {
        "first_token_s": short.times[0] - short.began,
        "undisturbed_p50_ms": percentile(undisturbed, 50),
        "undisturbed_p99_ms": percentile(undisturbed, 99),
        "disturbed_p50_ms": percentile(disturbed, 50),
        "disturbed_p99_ms": percentile(disturbed, 99),
        "tokens_per_s": (generated + prompt_tokens) / (end - disturbed_from),
        "prompt_tokens_per_s": prompt_tokens / (end - disturbed_from),
    }


class Stream:
    """A streamed completion whose tokens' times are written down."""

    def __init__(self, args, prompt, max_tokens):
        self.times, self.began, self.stopped = [], time.monotonic(), False
        self.connection = http.client.HTTPConnection("127.0.0.1", args.port)
        body = {"prompt": prompt, "max_tokens": max_tokens, "stream": True, "ignore_eos": True, "logprobs": 0}
        self.body = json.dumps(body)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        self.connection.request("POST", "/v1/completions", self.body, {"content-type": "application/json"})
        response = self.connection.getresponse()
        if response.status != 200:
            raise SystemExit(response.read().decode())
        for line in response:
            # With log-probabilities, every token has a chunk of its own, whether its text is complete or not.
            if line.startswith(b'data: {"') and b'"finish_reason":null' in line:
                self.times.append(time.monotonic())
            if self.stopped:
                break
        self.connection.close()

    def stop(self):
        self.stopped = True


def wait_for_all(streams):
    while not all(stream.times for stream in streams):
        if any(not stream.thread.is_alive() and not stream.times for stream in streams):
            raise SystemExit("a request ended without a token")
        time.sleep(0.005)


def between_tokens(streams, begin, end):
    gaps = []
    for stream in streams:
        times = [at for at in stream.times if begin <= at <= end]
        gaps += [1e3 * (b - a) for a, b in zip(times, times[1:])]
    return gaps


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * percent // 100)] if values else float("nan")


def spread(values):
    digits = 2 if max(values) < 10 else 0
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
