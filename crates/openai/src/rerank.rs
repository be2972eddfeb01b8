//! `/v1/rerank` and `/v1/score`: how near texts are to one another, as the cosine of their embeddings.

use rustorch_llama::{Pooling, Usage};
use serde::Serialize;
use serde_json::Value;

use crate::answer::Identity;
use crate::body::{pooling, truncation};
use crate::error::ApiError;
use crate::field_list::{FieldList, Refused, body};
use crate::fields::{COUNT, Object, TEXT, field, mistyped, optional, refused, required_text};
use crate::refusals::{BOOKKEEPING, EMBEDDING};

body! {
    /// Body of `/v1/rerank`.
    pub struct RerankBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        query: String = required_text, "what the documents are compared with";
        documents: Vec<String> = documents, "texts, or objects with a field `text`";
        top_n: Option<usize> = optional(COUNT), "only so many documents, the nearest";
        return_documents: Option<bool> = optional("true or false"), "false: their indices alone";
        pooling: Option<Pooling> = pooling, "`last` or `mean`; otherwise what the model's file says, or `last`";
        truncate_prompt_tokens: Option<usize> = truncation, "only so many tokens of a text, the last";
    }
}

body! {
    /// Body of `/v1/score`.
    pub struct ScoreBody {
        model: Option<String> = optional(TEXT), "one of the names in `/v1/models`";
        text_1 or queries: Vec<String> = texts, "a text, or as many as `text_2` has";
        text_2 or documents or items: Vec<String> = texts, "a text or a list of them";
        pooling: Option<Pooling> = pooling, "`last` or `mean`; otherwise what the model's file says, or `last`";
        truncate_prompt_tokens: Option<usize> = truncation, "only so many tokens of a text, the last";
    }
}

const OTHERS: &[Refused] = &[
    Refused::new("max_tokens_per_doc", "[]", "use truncate_prompt_tokens"),
    Refused::new("max_chunks_per_doc", "[]", "use truncate_prompt_tokens"),
    Refused::new("rank_fields", "[]", "a document is its text"),
    Refused::new("activation", "[]", "scores are cosines"),
    Refused::new("use_activation", "[]", "scores are cosines"),
];

/// The fields of `/v1/rerank`.
pub(crate) const RERANK: FieldList = FieldList {
    served: &[RerankBody::FIELDS],
    refused: &[OTHERS, EMBEDDING],
    accepted: &[BOOKKEEPING],
    nested: &[],
};

/// The fields of `/v1/score`.
pub(crate) const SCORE: FieldList = FieldList {
    served: &[ScoreBody::FIELDS],
    refused: &[OTHERS, EMBEDDING],
    accepted: &[BOOKKEEPING],
    nested: &[],
};

/// Which embeddings are compared, and how the answer says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The first with all others.
    Rerank { top_n: Option<usize>, has_documents: bool },
    /// The first so many, each with its counterpart among the others, or one with all.
    Score { num_first: usize },
}

impl RerankBody {
    /// All texts, the query first, and what becomes of them.
    pub fn texts(&self) -> (Vec<String>, Comparison) {
        let texts = [std::slice::from_ref(&self.query), &self.documents].concat();
        let has_documents = self.return_documents.unwrap_or(true);
        (texts, Comparison::Rerank { top_n: self.top_n, has_documents })
    }
}

impl ScoreBody {
    /// All texts, the first ones first, and what becomes of them.
    pub fn texts(&self) -> Result<(Vec<String>, Comparison), ApiError> {
        let (num_first, found) = (self.text_1.len(), self.text_2.len());
        if num_first != 1 && num_first != found {
            let rest =
                format_args!("expected one or as many as text_2 has, which is {found}, found {num_first}");
            return Err(refused("text_1", rest));
        }
        Ok(([&self.text_1[..], &self.text_2].concat(), Comparison::Score { num_first }))
    }
}

/// Reads one text or a list of them.
fn texts(body: &Object, name: &str) -> Result<Vec<String>, ApiError> {
    let texts = match body.get(name) {
        Some(Value::String(text)) => vec![text.clone()],
        _ => field(body, name, "a string or a list of strings")?.unwrap_or_default(),
    };
    if texts.is_empty() { Err(refused(name, "expected at least one text, found none")) } else { Ok(texts) }
}

fn documents(body: &Object, name: &str) -> Result<Vec<String>, ApiError> {
    let documents: Vec<Value> = field(body, name, "a list of texts")?.unwrap_or_default();
    let read = |(index, document): (usize, &Value)| match document {
        Value::String(text) => Ok(text.clone()),
        document => document["text"].as_str().map(str::to_owned).ok_or_else(|| {
            mistyped(&format!("{name}[{index}]"), "a string or an object with a text", document)
        }),
    };
    if documents.is_empty() {
        return Err(refused(name, "expected at least one, found none"));
    }
    documents.iter().enumerate().map(read).collect()
}

/// The body of an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Compared {
    Rerank { id: String, model: String, results: Vec<Ranked>, usage: Tokens },
    Score { id: String, object: &'static str, created: u64, model: String, data: Vec<Scored>, usage: Tokens },
}

#[derive(Debug, Serialize)]
pub(crate) struct Ranked {
    index: usize,
    relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Debug, Serialize)]
struct Document {
    text: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Scored {
    index: usize,
    object: &'static str,
    score: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tokens {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Compared {
    /// Of the embeddings of all texts.
    pub fn new(
        comparison: Comparison,
        identity: &Identity<'_>,
        model: String,
        (embeddings, texts): (&[Vec<f32>], &[String]),
        usage: Usage,
    ) -> Self {
        let usage = Tokens { prompt_tokens: usage.prompt_tokens, total_tokens: usage.prompt_tokens };
        match comparison {
            Comparison::Rerank { top_n, has_documents } => {
                let ranked = |(index, embedding): (usize, &Vec<f32>)| Ranked {
                    index,
                    relevance_score: cosine(&embeddings[0], embedding),
                    document: has_documents.then(|| Document { text: texts[index + 1].clone() }),
                };
                let mut results: Vec<_> = embeddings[1..].iter().enumerate().map(ranked).collect();
                // The sort is stable: of equal ones the first comes first.
                results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
                results.truncate(top_n.unwrap_or(usize::MAX));
                Self::Rerank { id: format!("rerank-{}", identity.suffix), model, results, usage }
            }
            Comparison::Score { num_first } => {
                let (first, second) = embeddings.split_at(num_first);
                let scored = |(index, embedding): (usize, &Vec<f32>)| {
                    let score = cosine(&first[if num_first == 1 { 0 } else { index }], embedding);
                    Scored { index, object: "score", score }
                };
                let data = second.iter().enumerate().map(scored).collect();
                let (id, created) = (format!("score-{}", identity.suffix), identity.created);
                Self::Score { id, object: "list", created, model, data, usage }
            }
        }
    }
}

/// Of vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
