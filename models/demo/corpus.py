"""Writes the training text of the demo model: simple stories, plain and as chats.

    python corpus.py --stories 1000 --seed 1 > sample.jsonl

One JSON string a line: a document, without BOS and EOS. Chats hold the control tokens of
`tokenizer.py` as text. Story i of seed S depends on (S, i) alone, so the result is the same for any
number of processes.
"""

import argparse
import json
import multiprocessing as mp
import random
import sys

import plots_deeds
import plots_heart
import plots_lost
import plots_trips
import plots_world
from grammar import new_story

PLOTS = plots_lost.PLOTS + plots_heart.PLOTS + plots_deeds.PLOTS + plots_trips.PLOTS + plots_world.PLOTS
ALL_PLOTS, PLOT_WEIGHTS = [p for p, _ in PLOTS], [w for _, w in PLOTS]
IM_START, IM_END = "<|im_start|>", "<|im_end|>"

ASKS = [
    "Tell me a story about {gist}",
    "Tell me a story about {gist}",
    "Tell me a story about {gist}",
    "Can you tell me a story about {gist}?",
    "Please tell me a story about {gist}",
    "Write a story about {gist}",
    "Write a short story about {gist}",
    "Tell me a short story about {gist}",
    "I want to hear a story about {gist}",
    "Give me a story about {gist}",
    "Give me a bedtime story about {gist}",
    "Could you write a story about {gist}?",
    "Story about {gist}",
    "Hello! Please tell me a story about {gist}",
    "I would like a story about {gist}",
    "Do you know a story about {gist}?",
    "Write a story for children about {gist}",
    "A story about {gist}, please",
    "Make up a story about {gist}",
    "Tell us about {gist}",
]
ASKS_ANY = [
    "Tell me a story",
    "Can you tell me a story?",
    "Please tell me a story",
    "Write a story",
    "Tell me a bedtime story",
    "I want a story",
    "Tell me something nice",
    "Story please",
    "Write a short story for my child",
    "Tell me a short story",
    "Once upon a time",
    "Please write a story",
    "I cannot sleep. Tell me a story",
    "Tell me a fairy tale",
]
MORE = [
    "Another one, please",
    "Tell me another story",
    "One more!",
    "Can I hear another story?",
    "Again, please",
    "That was nice. Tell me another one",
]
THEMES = {
    "lost": "losing something",
    "friend": "friendship",
    "miss": "missing a friend",
    "share": "sharing",
    "brave": "being brave",
    "help": "helping others",
    "practice": "learning something new",
    "team": "working together",
    "listen": "listening",
    "honest": "telling the truth",
    "gift": "giving",
    "proud": "being proud",
    "wonder": "something strange",
    "patience": "being patient",
    "home": "coming home",
    "wish": "a wish",
    "kind": "being kind",
    "trade": "trading",
    "rest": "bedtime",
}
LEADS = [
    "Here is a story about {gist}.",
    "Of course! Here is a story about {gist}.",
    "Yes! This is a story about {gist}.",
]
SYSTEMS = [
    "You are a kind storyteller.",
    "You tell stories to children.",
    "You are a helpful assistant.",
    "You are a friendly storyteller. Use simple words.",
]
SMALL_TALK = [
    (
        ["Hello", "Hi", "Hi!", "Hello!", "Good morning", "Hey", "Hello there", "Good evening"],
        [
            "Hello! Would you like to hear a story?",
            "Hi! I know many stories. What shall the story be about?",
            "Hello! Tell me an animal, and I will tell you a story about it.",
        ],
    ),
    (
        [
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Are you a person?",
            "What can you do?",
            "What do you know?",
        ],
        [
            "I am a very small story model. I only know how to tell simple stories.",
            "I am a small language model that tells stories for children.",
            "I can tell little stories about animals and children. Would you like one?",
        ],
    ),
    (
        [
            "What is two plus two?",
            "What is the capital of France?",
            "How is the weather today?",
            "Write a program",
            "Explain physics",
            "What is 2+2?",
            "How do I cook rice?",
            "Translate this",
            "Who is the president?",
            "What time is it?",
            "Help me with my homework",
            "What is the meaning of life?",
            "Write some code",
            "How far is the moon?",
            "What is Rust?",
        ],
        [
            "I am sorry, I do not know that. I am a very small model, and I only know stories. Would you like one?",
            "I do not know. But I can tell you a story!",
            "That is too hard for me. I only tell little stories.",
        ],
    ),
    (
        ["Thank you", "Thanks!", "Thank you!", "Goodbye", "Bye", "Good night"],
        [
            "You are welcome! Good night, and sweet dreams.",
            "You are welcome! Come back for another story.",
            "Goodbye! Sleep well.",
        ],
    ),
]


def title_case(text):
    small = {"the", "a", "an", "and", "of", "in", "to", "for"}
    words = text.split()
    return " ".join(w if i and w in small else w[0].upper() + w[1:] for i, w in enumerate(words))


def write_story(rng):
    """One story, with its gist ("a fox who lost a kite"), title, theme and questions about it."""
    s = new_story(rng)
    h = s.cast["h"]
    if s.chance(0.25):
        plot = s.lean(h.name or h.noun, ALL_PLOTS, n=2, p=1.0)
    else:
        plot = rng.choices(ALL_PLOTS, PLOT_WEIGHTS)[0]
    plot(s)
    roll = rng.random()
    if h.name_told and h.kind == "child":
        who = h.name if roll < 0.4 else f"{h.plain} named {h.name}" if roll < 0.8 else h.plain
    elif h.name_told and roll < 0.3:
        who = f"{h.plain} named {h.name}"
    else:
        who = h.plain if roll < 0.75 else h.a
    s.full_gist = who if s.chance(0.25) else f"{who} {s.render(s.gist)}"
    # Render the rest now, while the cast is at hand.
    s.title = title_case(s.render(s.title))
    s.qa = [(s.render(q), s.render(a)) for q, a in s.qa]
    if h.name_told:
        s.qa.append((f"What was the name of the {h.noun}?", f"The {h.noun} was named {h.name}."))
    return s


def roughen(text, rng):
    """A user's line as users type it."""
    roll = rng.random()
    if roll < 0.15:
        return text[0].lower() + text[1:]
    if roll < 0.6 and text[-1] not in ".!?":
        return text + "."
    return text


def turn(role, text):
    return f"{IM_START}{role}\n{text}{IM_END}"


def write_chat(rng):
    """A chat: a request, the story, and now and then questions about it or another request."""
    turns = []
    if rng.random() < 0.2:
        turns.append(turn("system", rng.choice(SYSTEMS)))
    if rng.random() < 0.06:
        asks, answers = rng.choice(SMALL_TALK)
        turns += [turn("user", roughen(rng.choice(asks), rng)), turn("assistant", rng.choice(answers))]
        if rng.random() < 0.6:
            return "\n".join(turns)
    for n in range(1 if rng.random() < 0.9 else 2):
        s = write_story(rng)
        roll = rng.random()
        if n:
            ask = rng.choice(MORE)
        elif roll < 0.12:
            ask = rng.choice(ASKS_ANY)
        elif roll < 0.2:
            ask = rng.choice(ASKS).replace("{gist}", THEMES[s.theme])
        elif roll < 0.26:
            ask = rng.choice(ASKS).replace("{gist}", s.cast["h"].plain + " " + s.cast["p"].at)
        else:
            ask = rng.choice(ASKS).replace("{gist}", s.full_gist)
        story = s.text()
        if roll > 0.9:
            story = rng.choice(LEADS).replace("{gist}", s.full_gist) + "\n\n" + story
        turns += [turn("user", roughen(ask, rng)), turn("assistant", story)]
        if rng.random() < 0.25:
            for q, a in rng.sample(s.qa, rng.randint(1, min(2, len(s.qa)))):
                turns += [turn("user", q), turn("assistant", a)]
    if rng.random() < 0.05:
        asks, answers = SMALL_TALK[-1]
        turns += [turn("user", rng.choice(asks)), turn("assistant", rng.choice(answers))]
    return "\n".join(turns)


def document(seed, index):
    rng = random.Random(seed * 1_000_003 + index)
    if rng.random() < 0.45:
        return write_chat(rng)
    s = write_story(rng)
    return f"{s.title}\n\n{s.text()}" if rng.random() < 0.05 else s.text()


def _shard(job):
    seed, lo, hi = job
    return [document(seed, i) for i in range(lo, hi)]


def documents(n, seed, processes=None):
    """Documents 0..n of a seed, in order."""
    step = 2000
    jobs = [(seed, lo, min(lo + step, n)) for lo in range(0, n, step)]
    with mp.Pool(processes) as pool:
        for shard in pool.imap(_shard, jobs):
            yield from shard


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--stories", type=int, default=1000)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    for doc in documents(args.stories, args.seed):
        json.dump(doc, sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
