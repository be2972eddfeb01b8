//! Text survives the way to tokens and back, and streaming shows the same text as decoding at once.

use std::sync::LazyLock;

use crate::support::{Kind, Vocabulary, published};
use proptest::prelude::*;
use tokenizer::{Bos, ControlTokens, Special, Tokenizer};

static GPT_2: LazyLock<Tokenizer> = LazyLock::new(|| published("gpt-2"));
static QWEN2: LazyLock<Tokenizer> = LazyLock::new(|| published("qwen2"));
static PHI_3: LazyLock<Tokenizer> = LazyLock::new(|| published("phi-3"));

/// Any text, with a liking for what pre-tokenizers and merges care about.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        "[ \t\r\n]{1,5}",
        "[a-zA-Z']{1,8}",
        "[0-9]{1,5}",
        "[!-/<-@|]{1,4}",
        "[а-я你-好가-각]{1,4}",
        Just("\u{200d}".into()),
        Just("<|im_end|>".into()),
        Just("</s>".into()),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn stream(tokenizer: &Tokenizer, tokens: &[u32]) -> (Vec<String>, String) {
    let mut detokenizer = tokenizer.detokenizer();
    let pushed: Vec<String> = tokens.iter().map(|&id| detokenizer.push(tokenizer, id)).collect();
    let text = pushed.concat() + &detokenizer.finish();
    (pushed, text)
}

proptest! {
    #[test]
    fn bpe_decodes_what_it_encodes(text in text()) {
        for tokenizer in [&*GPT_2, &*QWEN2] {
            let tokens = tokenizer.encode(&text, Special::Text, Bos::Skip);
            prop_assert_eq!(&tokenizer.decode(&tokens, ControlTokens::Hide), &text);
            let tokens = tokenizer.encode(&text, Special::Parse, Bos::Add);
            prop_assert_eq!(&tokenizer.decode(&tokens, ControlTokens::Show), &text);
        }
    }

    /// SentencePiece cannot tell `▁` from a space.
    #[test]
    fn spm_decodes_what_it_encodes(text in text()) {
        let text = text.replace('▁', "");
        let tokens = PHI_3.encode(&text, Special::Text, Bos::Add);
        prop_assert_eq!(&PHI_3.decode(&tokens, ControlTokens::Hide), &text);
    }

    /// Whatever a model samples.
    #[test]
    fn streaming_shows_what_decoding_does(tokens in prop::collection::vec(0_u32..32_100, 0..50)) {
        for tokenizer in [&*GPT_2, &*QWEN2, &*PHI_3] {
            prop_assert_eq!(stream(tokenizer, &tokens).1, tokenizer.decode(&tokens, ControlTokens::Hide));
        }
    }

    /// Bytes at random, one token each: what comes out is what a lossy conversion of all of them gives.
    #[test]
    fn streaming_is_lossy_like_the_standard_library(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
        let tokens: Vec<u32> = bytes.iter().map(|&byte| 3 + u32::from(byte)).collect();
        prop_assert_eq!(PHI_3.token_bytes(3), [0]);
        let mut detokenizer = PHI_3.detokenizer().continuing();
        let mut text: String = tokens.iter().map(|&id| detokenizer.push(&PHI_3, id)).collect();
        text.push_str(&detokenizer.finish());
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn streaming_holds_back_half_a_character() {
    let tokens = GPT_2.encode("né🦙!", Special::Text, Bos::Skip);
    let (pushed, text) = stream(&GPT_2, &tokens);
    assert_eq!(text, "né🦙!");
    assert!(pushed.iter().any(|piece| piece.is_empty()), "the llama takes several tokens: {pushed:?}");
    assert!(!text.contains(char::REPLACEMENT_CHARACTER));

    // Cut off in the middle of the llama.
    let (_, text) = stream(&GPT_2, &tokens[..tokens.len() - 2]);
    assert_eq!(text, "né\u{fffd}");
}

#[test]
fn a_clone_goes_on_from_the_same_point() {
    let tokens = GPT_2.encode("🦙", Special::Text, Bos::Skip);
    let (last, first) = tokens.split_last().unwrap();
    let mut detokenizer = GPT_2.detokenizer();
    for &id in first {
        assert_eq!(detokenizer.push(&GPT_2, id), "");
    }
    let mut clone = detokenizer.clone();
    assert_eq!(detokenizer.push(&GPT_2, *last), "🦙");
    assert_eq!(clone.finish(), "\u{fffd}");
}

#[test]
fn a_new_text_loses_the_space_that_encoding_added_a_continued_one_does_not() {
    let tokens = PHI_3.encode("Hello world", Special::Text, Bos::Skip);
    assert_eq!(stream(&PHI_3, &tokens).0, ["Hello", " world"]);
    let mut continued = PHI_3.detokenizer().continuing();
    assert_eq!(continued.push(&PHI_3, tokens[0]), " Hello");
    assert_eq!(continued.push(&PHI_3, tokens[1]), " world");

    // As encoding adds one after a special token too.
    let mut vocabulary = Vocabulary::spm(&["▁", "a"]);
    vocabulary.token("[X]", Kind::UserDefined);
    let tokenizer = vocabulary.build();
    let tokens = tokenizer.encode("a[X]a[X] a", Special::Text, Bos::Add);
    assert_eq!(tokenizer.decode(&tokens, ControlTokens::Hide), "a[X]a[X] a");
}

/// A megabyte that no pattern cuts anywhere must not take quadratic time or overrun anything.
#[test]
fn long_runs_are_no_trouble() {
    const LEN: usize = 1 << 20;
    for text in ["a", " ", "\n", "é", "\u{300}", "7"].map(|c| c.repeat(LEN / c.len())) {
        for tokenizer in [&*QWEN2, &*PHI_3] {
            let tokens = tokenizer.encode(&text, Special::Parse, Bos::Skip);
            assert!(tokenizer.decode(&tokens, ControlTokens::Show) == text, "{:?}..", &text[..4]);
        }
    }
}
