//! What was said so far, in memory and in a file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustorch_llama::ChatMessage;
use serde_json::{Value, json};

#[derive(Debug, Default, PartialEq)]
pub struct Conversation {
    pub system: Option<String>,
    /// Messages of the user and answers.
    pub turns: Vec<ChatMessage>,
}

impl Conversation {
    pub fn new(system: Option<String>) -> Self {
        Self { system, turns: Vec::new() }
    }

    pub fn push(&mut self, role: &str, text: String) {
        self.turns.push(ChatMessage::new(role, text));
    }

    /// Takes back the last message of the user and what follows it; false if there is none.
    pub fn undo(&mut self) -> bool {
        let last = self.turns.iter().rposition(|turn| turn.role == "user");
        self.turns.truncate(last.unwrap_or(0));
        last.is_some()
    }

    /// All messages, as a template takes them.
    pub fn messages(&self) -> Vec<ChatMessage> {
        let system = self.system.iter().map(|text| ChatMessage::new("system", text));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// Writes it as the body of a chat in OpenAI's API.
    pub fn save(&self, path: &Path) -> Result<()> {
        let messages: Vec<Value> = self
            .messages()
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        let text = format!("{:#}\n", json!({"messages": messages}));
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Reads what [`Self::save`] wrote, or an array of messages.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&fs::read(path).with_context(|| path.display().to_string())?)
            .with_context(|| path.display().to_string())
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text)?;
        let Some(messages) = value.get("messages").unwrap_or(&value).as_array() else {
            bail!("expected an array of messages, or an object with one");
        };
        let mut conversation = Self::default();
        for (index, message) in messages.iter().enumerate() {
            let (Some(role), Some(content)) = (message["role"].as_str(), message["content"].as_str()) else {
                bail!("messages[{index}]: expected a role and a content, both texts");
            };
            match role {
                "system" | "developer" if index == 0 => conversation.system = Some(content.to_owned()),
                "user" | "assistant" => conversation.push(role, content.to_owned()),
                _ => bail!("messages[{index}]: expected the role user or assistant, found {role:?}"),
            }
        }
        Ok(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_taken_back_with_its_answer() {
        let mut conversation = Conversation::new(Some("Be brief.".to_owned()));
        assert!(!conversation.undo());
        for (role, text) in [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")] {
            conversation.push(role, text.to_owned());
        }
        assert!(conversation.undo());
        assert_eq!(conversation.turns, [ChatMessage::new("user", "a"), ChatMessage::new("assistant", "b")]);
        assert_eq!(conversation.messages()[0], ChatMessage::new("system", "Be brief."));
    }

    #[test]
    fn files_are_read_or_refused() {
        let good = br#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}"#;
        let conversation = Conversation::parse(good).unwrap();
        assert_eq!(conversation.system.as_deref(), Some("s"));
        assert_eq!(conversation.turns, [ChatMessage::new("user", "u")]);
        for (text, expect) in [
            ("{}", "expected an array of messages"),
            ("[1]", "messages[0]: expected a role and a content"),
            (r#"[{"role": "tool", "content": ""}]"#, "messages[0]: expected the role user or assistant"),
        ] {
            let error = Conversation::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
