"""Writes the checkpoint of `train.py` as a GGUF file: matrices in Q8_0, norms in F32.

    python export.py --checkpoint checkpoint --out demo.gguf [--type q8_0|f32|f16]

Key names and values follow the GGUF specification (ggml-org/ggml, docs/gguf.md).
"""

import argparse
import json
import os

import gguf
import numpy as np
from safetensors.numpy import load_file

from corpus import IM_END
from tokenizer import BOS, CONTROL, EOS

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TYPES = {
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}
# Hugging Face's name within a layer -> GGUF's
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleave(w, heads):
    """Reorders the rows of a Q or K matrix for GGUF's Llama, whose RoPE turns dimensions 2i and 2i + 1.

    The checkpoint turns i and i + head_dim / 2.
    """
    rows, cols = w.shape
    return w.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_config(w, c, file_type):
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    w.add_name("RusTorch demo storyteller")
    w.add_description("A tiny Llama that tells simple stories, trained on generated text.")
    w.add_license("MIT OR Apache-2.0")
    w.add_file_type(file_type)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_vocab_size(c["vocab_size"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(c["rope_theta"])


def write_tokenizer(w, path):
    with open(path) as f:
        bpe = json.load(f)["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    kinds = [gguf.TokenType.CONTROL if t in CONTROL else gguf.TokenType.NORMAL for t in tokens]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    w.add_token_merges([" ".join(m) for m in bpe["merges"]])
    w.add_bos_token_id(tokens.index(BOS))
    w.add_eos_token_id(tokens.index(EOS))
    w.add_eot_token_id(tokens.index(IM_END))
    w.add_pad_token_id(tokens.index(EOS))
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)


def gguf_tensors(weights, c):
    """(name, f32 array) in the order of the file. No `output.weight`: it is the embedding."""
    yield "token_embd.weight", weights["embed_tokens.weight"]
    for i in range(c["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            m = weights[f"layers.{i}.{theirs}.weight"]
            if ours == "attn_q":
                m = interleave(m, c["num_attention_heads"])
            if ours == "attn_k":
                m = interleave(m, c["num_key_value_heads"])
            yield f"blk.{i}.{ours}.weight", m
    yield "output_norm.weight", weights["norm.weight"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="checkpoint")
    parser.add_argument("--tokenizer", default="tokenizer.json")
    parser.add_argument("--out", default="demo.gguf")
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    args = parser.parse_args()
    with open(os.path.join(args.checkpoint, "config.json")) as f:
        config = json.load(f)
    weights = load_file(os.path.join(args.checkpoint, "model.safetensors"))
    matrix_type, file_type = TYPES[args.type]

    w = gguf.GGUFWriter(args.out, "llama")
    write_config(w, config, file_type)
    write_tokenizer(w, args.tokenizer)
    for name, m in gguf_tensors(weights, config):
        m = np.ascontiguousarray(m, np.float32)
        kind = matrix_type if m.ndim == 2 else gguf.GGMLQuantizationType.F32
        w.add_tensor(name, gguf.quants.quantize(m, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{args.out}: {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
