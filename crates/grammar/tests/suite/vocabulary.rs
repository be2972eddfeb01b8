//! A vocabulary of all bytes and a few longer tokens, and texts that a constraint lets pass.

use std::sync::{Arc, OnceLock};

use gguf::{Array, Gguf, GgufWriter, Value};
use grammar::{Constraint, Grammar, GrammarError, Grammars, Spec};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tokenizer::Tokenizer;

/// Tokens of more than a byte.
const PIECES: [&str; 20] = [
    "{\"",
    "\":",
    "\": ",
    "\",",
    "\", \"",
    "foo",
    "bar",
    "baz",
    "foobar",
    "true",
    "false",
    "null",
    "12",
    "-1",
    "0.5",
    "[[",
    "]}",
    "\n  ",
    "é",
    "<tool_call>",
];
const END: u32 = 0;

/// Its tokenizer; the token 0 ends a text.
pub fn tokenizer() -> Arc<Tokenizer> {
    let mut tokens = vec!["</s>".to_owned()];
    let mut types = vec![3];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    tokens.extend(PIECES.map(|piece| piece.replace(' ', "▁")));
    types.resize(tokens.len(), 1);
    let mut writer = GgufWriter::new();
    writer.metadata("tokenizer.ggml.model", Value::String("llama".into()));
    writer.metadata("tokenizer.ggml.eos_token_id", Value::U32(END));
    writer.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    writer.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let file = Gguf::from_vec(writer.write()).expect("a GGUF file");
    Arc::new(Tokenizer::from_gguf(&file).expect("a tokenizer"))
}

pub fn grammars() -> &'static Grammars {
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    GRAMMARS.get_or_init(|| Grammars::new(tokenizer()))
}

pub fn compile(spec: &Spec) -> Result<Grammar, GrammarError> {
    grammars().compile(spec)
}

/// Whether a text as a whole is a sentence, taken byte by byte.
pub fn accepts(grammar: &Grammar, text: &str) -> bool {
    let mut constraint = grammar.start();
    let takes = |constraint: &mut Constraint, byte: u8| {
        let token_id = u32::from(byte) + 1;
        constraint.mask().is_ok_and(|mask| mask.allows(token_id)) && constraint.commit(token_id).is_ok()
    };
    text.bytes().all(|byte| takes(&mut constraint, byte)) && constraint.may_end().expect("a state")
}

/// A random sentence. `None` if it does not end within `most` tokens.
pub fn sample(grammar: &Grammar, seed: u64, most: usize) -> Option<String> {
    let tokenizer = grammars().tokenizer();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut constraint = grammar.start();
    let mut bytes = Vec::new();
    for step in 0..most {
        let mask = constraint.mask().expect("a mask");
        assert!(!mask.allows(END), "the end is no part of a mask");
        let may_end = constraint.may_end().expect("a state");
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| mask.allows(id)).collect();
        if may_end && (allowed.is_empty() || rng.next_u64().is_multiple_of(4)) {
            return Some(String::from_utf8(bytes).expect("UTF-8"));
        }
        assert!(!allowed.is_empty(), "stuck after {:?}", String::from_utf8_lossy(&bytes));
        // The longer the text, the more what closes something is wanted.
        let closes = |id: &&u32| {
            let bytes = tokenizer.token_bytes(**id);
            bytes.len() <= 2 && bytes.iter().all(|byte| b"\"]}".contains(byte))
        };
        let closing = allowed.iter().find(closes);
        let token_id = match closing {
            Some(&closing) if rng.next_u64() % most as u64 <= step as u64 * 2 => closing,
            _ => allowed[rng.next_u64() as usize % allowed.len()],
        };
        bytes.extend_from_slice(tokenizer.token_bytes(token_id));
        constraint.commit(token_id).expect("a token of the mask");
    }
    None
}
