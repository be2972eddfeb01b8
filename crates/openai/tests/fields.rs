//! The documentation's tables of fields are those of the code.

use std::{env, fs};

use openai::{Endpoint, markdown};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/serving.md");
const BEGIN: &str = "<!-- fields: made by the code, see crates/openai/tests/fields.rs -->\n";
const END: &str = "<!-- end of fields -->\n";

/// `UPDATE_DOCS=1 cargo test -p rustorch-openai --test fields` writes them.
#[test]
fn the_documented_fields_are_those_of_the_code() {
    let headings = [
        "completions",
        "chats",
        "embeddings",
        "responses",
        "messages",
        "rerank",
        "score",
        "completion",
        "infill",
        "api/chat",
        "api/generate",
        "api/embed",
    ];
    let endpoints: Vec<_> = headings.into_iter().zip(Endpoint::ALL.map(Endpoint::fields)).collect();
    let expect = markdown(&endpoints);
    let docs = fs::read_to_string(DOCS).unwrap();
    let (before, rest) = docs.split_once(BEGIN).expect("the docs have the first mark");
    let (found, after) = rest.split_once(END).expect("the docs have the second mark");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCS, format!("{before}{BEGIN}\n{expect}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(found.trim(), expect.trim(), "run this test with UPDATE_DOCS=1 and look at the change");
    }
}
