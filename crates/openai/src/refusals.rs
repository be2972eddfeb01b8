//! The known fields that are refused or have no effect: plain data. A field moves from here to the type that reads it when
//! it is served.

use crate::body::{ChatBody, Common, CompletionBody, EmbeddingBody, Message, Sampling, StreamOptions};
use crate::field_list::{Field, FieldList, Refused};
use crate::structured::{self, STRUCTURED_OUTPUTS, Structured};
use crate::tools::ToolFields;

/// The fields of `/v1/completions`.
pub const COMPLETIONS: FieldList = FieldList {
    served: &[CompletionBody::FIELDS, Common::FIELDS, Sampling::FIELDS, Structured::FIELDS],
    refused: &[PROMPT, TOOLS, FUNCTIONS, SAMPLING, structured::REFUSED, N_PROBS, OUTPUT, ADAPTERS],
    accepted: &[BOOKKEEPING, SAMPLING_DETAILS, structured::DETAILS],
    nested: NESTED,
};

/// The fields of `/v1/chat/completions`.
pub const CHAT: FieldList = FieldList {
    served: &[ChatBody::FIELDS, Common::FIELDS, Sampling::FIELDS, Structured::FIELDS, ToolFields::FIELDS],
    refused: &[
        FUNCTIONS,
        TEMPLATE,
        REASONING,
        MEDIA,
        SAMPLING,
        structured::REFUSED,
        N_PROBS,
        OUTPUT,
        ADAPTERS,
    ],
    accepted: &[BOOKKEEPING, SAMPLING_DETAILS, structured::DETAILS],
    nested: &[NESTED[0], NESTED[1], ("messages", &MESSAGE)],
};

/// The fields of `/v1/embeddings`.
pub const EMBEDDINGS: FieldList = FieldList {
    served: &[EmbeddingBody::FIELDS],
    refused: &[EMBEDDING],
    accepted: &[BOOKKEEPING],
    nested: &[],
};

/// The fields of a message.
const MESSAGE: FieldList = FieldList {
    served: &[Message::FIELDS],
    refused: &[MESSAGE_TOOLS],
    accepted: &[&[
        accepted("refusal", "of an answer that is sent back"),
        accepted("annotations", "of an answer that is sent back"),
        accepted("id", "of an answer that is sent back"),
    ]],
    nested: &[],
};

const NESTED: &[(&str, &FieldList)] =
    &[("stream_options", &STREAM_OPTIONS), ("structured_outputs", &STRUCTURED_OUTPUTS)];

const STREAM_OPTIONS: FieldList = FieldList {
    served: &[StreamOptions::FIELDS],
    refused: &[],
    accepted: &[&[accepted("include_obfuscation", "chunks are not padded")]],
    nested: &[],
};

pub(crate) const fn accepted(name: &'static str, doc: &'static str) -> Field {
    Field { name, aliases: &[], doc }
}

/// What the API's providers keep for themselves, and hints that change how fast an answer is but not the answer.
pub(crate) const BOOKKEEPING: &[Field] = &[
    accepted("user", "nothing is kept of who asks"),
    accepted("safety_identifier", "nothing is kept of who asks"),
    accepted("metadata", "nothing is kept"),
    accepted("store", "nothing is kept"),
    accepted("service_tier", "there is one"),
    accepted("request_id", "every answer has its own `x-request-id`"),
    accepted("prompt_cache_key", "the prefix cache finds what it has by itself"),
    accepted("prompt_cache_retention", "the prefix cache finds what it has by itself"),
    accepted("cache_prompt", "an answer is the same with the prefix cache and without"),
    accepted("id_slot", "an answer is the same in any slot"),
];

/// Parameters of samplers that are refused themselves.
pub(crate) const SAMPLING_DETAILS: &[Field] =
    &[accepted("dynatemp_exponent", "only beside `dynatemp_range`")];

/// Ways to choose tokens.
pub(crate) const SAMPLING: &[Refused] = &[
    Refused::new("top_a", "[0]", "min_p is similar"),
    Refused::new("tfs_z", "[1]", ""),
    Refused::new("dynatemp_range", "[0]", ""),
    Refused::new("repeat_last_n", "[-1]", "repetition_penalty counts all tokens"),
    Refused::new("penalize_nl", "[true]", "repetition_penalty counts all tokens"),
    Refused::new(
        "samplers",
        "[]",
        "the order is fixed: penalties, dry, top_n_sigma, temperature, top_k, typical_p, top_p, min_p, xtc",
    ),
    Refused::new("min_keep", "[0, 1]", "one token is always kept"),
    Refused::new("allowed_token_ids", "[]", "logit_bias can favour tokens"),
    Refused::new("bad_words", "[]", "logit_bias can forbid tokens"),
    Refused::new("logits_processors", "[]", ""),
    Refused::new("use_beam_search", "[]", ""),
    Refused::new("length_penalty", "[1]", "of beam search"),
    Refused::new("early_stopping", "[]", "of beam search"),
    Refused::new("vllm_xargs", "[]", ""),
];

const N_PROBS: &[Refused] = &[Refused::new("n_probs", "[0]", "use logprobs")];

/// What the answer says and when it ends.
pub(crate) const OUTPUT: &[Refused] = &[
    Refused::new("post_sampling_probs", "[]", "logprobs are the model's own"),
    Refused::new("spaces_between_special_tokens", "[true]", ""),
    Refused::new("detokenize", "[true]", ""),
    Refused::new("return_tokens_as_token_ids", "[]", ""),
    Refused::new("return_tokens", "[]", ""),
    Refused::new("return_progress", "[]", ""),
    Refused::new("response_fields", "[]", ""),
    Refused::new("n_keep", "[0, -1]", "the context is not shifted"),
    Refused::new("n_discard", "[0]", "the context is not shifted"),
    Refused::new("n_indent", "[0]", ""),
    Refused::new("t_max_predict_ms", "[0, -1]", "the server's --request-timeout bounds a request"),
    Refused::new("priority", "[0]", "a request's priority is the server's"),
    Refused::new("cache_salt", "[]", "the prefix cache is shared"),
];

/// Other weights than the model's.
pub(crate) const ADAPTERS: &[Refused] = &[
    Refused::new("lora", "[]", "the server has one model and no adapters"),
    Refused::new("kv_transfer_params", "[]", ""),
];

/// Of text completions.
const PROMPT: &[Refused] = &[
    Refused::new("add_special_tokens", "[true]", "give the prompt as token ids"),
    Refused::new("prompt_embeds", "[]", "the model reads tokens"),
    Refused::new("image_data", "[]", "the model reads text alone"),
];

const TOOLS: &[Refused] = &[
    Refused::new("tools", "[]", "chats have tools"),
    Refused::new("tool_choice", r#"["none", "auto"]"#, "chats have tools"),
    Refused::new("parallel_tool_calls", "[true, false]", "chats have tools"),
];

const FUNCTIONS: &[Refused] = &[
    Refused::new("functions", "[]", "use tools"),
    Refused::new("function_call", r#"["none", "auto"]"#, "use tool_choice"),
    Refused::new("web_search_options", "[]", "the server calls no tools itself"),
];

const TEMPLATE: &[Refused] = &[
    Refused::new("add_special_tokens", "[]", "the template writes them"),
    Refused::new("chat_template", "[]", "the server's --chat-template replaces the model file's"),
    Refused::new("documents", "[]", "put them into a message"),
    Refused::new("echo", "[]", ""),
];

const REASONING: &[Refused] = &[
    Refused::new("reasoning", "[]", ""),
    Refused::new("include_reasoning", "[true]", ""),
    Refused::new("thinking_budget_tokens", "[-1]", ""),
    Refused::new("verbosity", r#"["medium"]"#, "say it in a message"),
];

const MEDIA: &[Refused] = &[
    Refused::new("audio", "[]", "the model writes text alone"),
    Refused::new("modalities", r#"[["text"]]"#, "the model writes text alone"),
    Refused::new("mm_processor_kwargs", "[]", "the model reads text alone"),
    Refused::new("prediction", "[]", ""),
];

const MESSAGE_TOOLS: &[Refused] = &[
    Refused::new("function_call", "[]", "use tool_calls"),
    Refused::new("audio", "[]", "the model reads text alone"),
    Refused::new("images", "[]", "the model reads text alone"),
];

pub(crate) const EMBEDDING: &[Refused] = &[
    Refused::new("normalize", "[true]", "embeddings have length 1"),
    Refused::new("embd_normalize", "[2]", "embeddings have length 1"),
    Refused::new("messages", "[]", "use input"),
    Refused::new("content", "[]", "use input"),
    Refused::new("input_type", "[]", "put the model's prefix for it before the text"),
    Refused::new("task", "[]", "put the model's prefix for it before the text"),
    Refused::new("prompt_name", "[]", "put the model's prefix for it before the text"),
    Refused::new("late_chunking", "[]", ""),
    Refused::new("embedding_type", r#"["float"]"#, "use encoding_format"),
    Refused::new("add_special_tokens", "[true]", ""),
    Refused::new("truncate", "[]", ""),
    Refused::new("additional_data", "[]", ""),
    Refused::new("priority", "[0]", "a request's priority is the server's"),
];
