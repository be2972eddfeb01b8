"""Trains the demo model's vocabulary: byte-level BPE with GPT-2's pre-tokenizer, 2,048 tokens.

    python tokenizer.py            # writes tokenizer.json

Byte-level BPE, because a GGUF file holds all of it (tokens and merges, `tokenizer.ggml.model = gpt2`,
`pre = gpt-2`): every loader applies the same merges in the same order, no byte is out of vocabulary,
and no score has to be turned back into a merge order, as SentencePiece vocabularies require.
"""

import argparse

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import IM_END, IM_START, documents

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CONTROL = [BOS, EOS, IM_START, IM_END]  # ids 0..3
VOCAB_SIZE = 2048


def train(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=CONTROL,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--stories", type=int, default=60_000)
    args.add_argument("--seed", type=int, default=7)
    args.add_argument("--out", default="tokenizer.json")
    args = args.parse_args()
    # Control tokens are no text to learn merges from.
    texts = (d.replace(IM_START, "").replace(IM_END, "") for d in documents(args.stories, args.seed))
    tok = train(texts)
    assert tok.get_vocab_size() == VOCAB_SIZE and [tok.token_to_id(t) for t in CONTROL] == [0, 1, 2, 3]
    tok.save(args.out)


if __name__ == "__main__":
    main()
