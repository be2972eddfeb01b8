"""Records what llama.cpp computes for the demo model: writes teacher_forcing.json beside this script.

    pip install llama-cpp-python==0.3.36 numpy
    python teacher_forcing.py

To be run again whenever models/demo/demo.gguf is replaced. The package's defaults hold: an f16 KV cache and, built
from source for the machine at hand, llama.cpp's best CPU kernels.

Each text below is tokenized by llama.cpp, BOS in front, and its first 64 tokens are given to the model, whatever it
would have said itself (teacher forcing). For each of the 64 positions the output has the 8 highest logits, highest
first, and the ids of their tokens.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from llama_cpp import Llama

OUT = Path(__file__).with_suffix(".json")
MODEL = Path(__file__).resolve().parents[4] / "models" / "demo" / "demo.gguf"
POSITIONS = 64
TOP = 8

# Stories that the demo model told at temperature 0.8, then changed by hand so that it has to follow others' words.
TEXTS = [
    "Once upon a time, there was a little fox who loved to chase butterflies. Her name was Luna. She was very clever. "
    "One day, Luna decided to go to the harbour. \"I want to see the ships,\" said Luna. \"I will build a boat!\" She "
    "worked all morning, but the wood was too heavy for one little fox. Then a kind elephant came by.",
    "One evening, when the sun was down, the brave princess saw a strange light over the lake. It blinked on and off, "
    "three times. \"What is that?\" whispered the cook. Nobody knew. So the princess took a lantern and a rope, and "
    "went down the hill alone. It was not a monster at all. It was a group of fireflies having a party.",
    "Long ago, an old wizard lived in a crooked tower. The wizard knew a hungry badger who was very proud. \"I am the "
    "fastest of all,\" she always said. One day, there was a race around the mountain. The prize was a golden spoon. "
    "The badger ran ahead, and the wizard came last, as wizards do. But he did not stop.",
    "Tom was a boy who loved to paint pictures of trains. He had a big smile and a good heart. One day, Tom was walking "
    "in the park. He found a small bean near the swings. He dug a little hole and put the bean in it. Tom waited one "
    "day, then two weeks, then a whole year. Nothing happened. \"It needs time,\" said a clever bear.",
    "In a quiet forest lived a wise owl named Molly. One fresh morning, Molly had an idea. \"Let us build a sand "
    "castle,\" she said, \"and win the contest!\" Her friend, a happy mouse, laughed. \"There is no sand in the forest,\" "
    "said the mouse. So they used snow, and the castle was white and shining until the spring came back.",
    "There was once a mouse named Pip who lived in a tiny hole behind the barn. Tomorrow was the butterfly's birthday, "
    "but Pip had no gift. He was sad. He went to the hill to think. \"I will make a flute,\" Pip said. He worked all "
    "night and made a flute out of a straw. At the party, the others gave cakes and songs.",
    "Lily had a red kite. They went everywhere together, even to school. Suddenly the sky turned dark. Snow fell thick "
    "and fast. \"I must find a dry place,\" said Lily. She ran and ran until she saw a door under the roots of a tree. "
    "\"Who is there?\" asked a voice. It was a sleepy dinosaur named Spot, and he was making soup.",
    "A little bear wanted to go home. He lived in a big brown cave with his two sisters. One day, he followed a line of "
    "ants over the bridge. When he stopped, he did not know where he was. It was getting dark. \"How will I get home?\" "
    "he asked. A curious penguin smiled. \"Follow the little river,\" she said. \"But never swim in it.\"",
    "It was a cold night. A gentle panda named Felix woke up in a forest of bamboo and heard a small sound. His best "
    "friend, a young puppy, was crying. \"I lost my blue ball,\" said the puppy. They looked under the bed. They looked "
    "behind the door. The ball was not there. Then Felix had an idea, and he began to dance.",
    "Once there was a rabbit who could not sleep. The moon was so bright, and the clock was so loud. First she turned "
    "the pillow around. Then she counted to one hundred, and back to one. But she was still awake. Her grandpa came in "
    "and told a story about a sleepy cloud who forgot to rain. Slowly her eyes closed. \"Good night,\" he whispered.",
]


def top_logits(llama, tokens):
    """The ids and values of the highest logits at each position."""
    llama.reset()
    llama.eval(tokens)
    logits = llama.scores[: len(tokens)]  # [len(tokens), vocabulary]
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    return ids, np.take_along_axis(logits, ids, axis=1)


def main():
    llama = Llama(str(MODEL), n_ctx=POSITIONS, n_batch=POSITIONS, n_threads=2, logits_all=True, verbose=False)
    prompts = []
    for text in TEXTS:
        tokens = llama.tokenize(text.encode(), add_bos=True, special=False)[:POSITIONS]
        assert len(tokens) == POSITIONS, f"{len(tokens)} tokens are too few: {text}"
        ids, logits = top_logits(llama, tokens)
        logits = [[round(float(value), 4) for value in row] for row in logits]
        prompts.append({"text": text, "tokens": tokens, "top_ids": ids.tolist(), "top_logits": logits})
    head = {
        "llama_cpp_python": version("llama-cpp-python"),
        "model_sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
    }
    # A line a prompt: short enough to look at, and to compare.
    lines = ",\n".join(json.dumps(prompt, separators=(",", ":")) for prompt in prompts)
    OUT.write_text(f"{json.dumps(head)[:-1]},\n\"prompts\": [\n{lines}\n]}}\n")


if __name__ == "__main__":
    main()
