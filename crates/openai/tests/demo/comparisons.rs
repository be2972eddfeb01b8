//! Texts that are compared by their embeddings.

use openai::{Endpoint, ModelNames};
use serde_json::{Value, json};

use crate::harness::{read, whole};

const TEXTS: [&str; 4] = ["A dog ran.", "The sun is hot", "A dog ran.", "Once upon a time"];

/// The cosine of two texts, from their embeddings.
fn cosine(a: &str, b: &str) -> f64 {
    let answer = whole(Endpoint::Embeddings, &json!({"input": [a, b], "pooling": "mean"}));
    let values = |index: usize| answer["data"][index]["embedding"].as_array().unwrap().clone();
    values(0).iter().zip(values(1)).map(|(a, b)| a.as_f64().unwrap() * b.as_f64().unwrap()).sum()
}

#[test]
fn documents_are_ranked_by_their_cosine() {
    let documents = json!([TEXTS[1], {"text": TEXTS[2]}, TEXTS[3]]);
    let body = json!({"query": TEXTS[0], "documents": documents, "pooling": "mean"});
    let answer = whole(Endpoint::Rerank, &body);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(results[0]["index"], 1, "the query itself");
    let score = |result: &Value| result["relevance_score"].as_f64().unwrap();
    assert!(results.is_sorted_by(|a, b| score(a) >= score(b)));
    for result in results {
        let text = TEXTS[result["index"].as_u64().unwrap() as usize + 1];
        assert_eq!(result["document"]["text"], text);
        assert!((score(result) - cosine(TEXTS[0], text)).abs() < 1e-5);
    }
    assert!(answer["usage"]["total_tokens"].as_u64() > Some(8));
    let mut fewer = body;
    fewer["top_n"] = json!(2);
    fewer["return_documents"] = json!(false);
    let few = whole(Endpoint::Rerank, &fewer);
    assert_eq!(few["results"].as_array().unwrap().len(), 2);
    assert_eq!(few["results"][0], json!({"index": 1, "relevance_score": results[0]["relevance_score"]}));
}

#[test]
fn pairs_are_scored() {
    let scores = |body: Value| -> Vec<f64> {
        let answer = whole(Endpoint::Score, &body);
        answer["data"].as_array().unwrap().iter().map(|entry| entry["score"].as_f64().unwrap()).collect()
    };
    let one = scores(json!({"text_1": TEXTS[0], "text_2": [TEXTS[1], TEXTS[2]], "pooling": "mean"}));
    let pairs =
        scores(json!({"text_1": [TEXTS[0], TEXTS[0]], "text_2": [TEXTS[1], TEXTS[2]], "pooling": "mean"}));
    assert_eq!(one, pairs);
    assert!((one[1] - 1.0).abs() < 1e-5 && (one[0] - cosine(TEXTS[0], TEXTS[1])).abs() < 1e-5);
    assert_ne!(one, scores(json!({"text_1": TEXTS[0], "text_2": [TEXTS[1], TEXTS[2]]})), "another pooling");
    let check = |endpoint, body: Value, param: &str| {
        let error = read(endpoint, &body, ModelNames::Any).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
    };
    check(Endpoint::Score, json!({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}), "text_1");
    check(Endpoint::Score, json!({"text_1": "a"}), "text_2");
    check(Endpoint::Rerank, json!({"query": "a", "documents": []}), "documents");
    check(Endpoint::Rerank, json!({"query": "a", "documents": [1]}), "documents[0]");
    check(Endpoint::Rerank, json!({"documents": ["a"]}), "query");
}
