//! Templates against Python's Jinja: `tests/jinja/make.py` has made what is expected.

use serde_json::Value;
use tokenizer::ChatMessage;

use crate::chat::render;

fn message(message: &Value) -> ChatMessage {
    let fields = message.as_object().unwrap();
    let text = |name: &str| fields[name].as_str().unwrap().to_owned();
    let others = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "content"));
    let fields = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    ChatMessage { fields, ..ChatMessage::new(text("role"), text("content")) }
}

#[test]
fn templates_do_what_python_s_do() {
    let corpus: Value = serde_json::from_str(include_str!("../jinja/cases.json")).unwrap();
    let mut wrong = Vec::new();
    for case in corpus["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        // By the name of the messages' shape; null if Python refuses the template.
        for (shape, expect) in case["expect"].as_object().unwrap() {
            let messages: Vec<_> = corpus["shapes"][shape].as_array().unwrap().iter().map(message).collect();
            let found = render(template, &messages);
            if found.as_deref().ok() != expect.as_str() {
                wrong.push(format!("{shape}: {template}\n  expected {expect:?}\n  found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
