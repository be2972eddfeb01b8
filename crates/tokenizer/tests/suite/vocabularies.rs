//! What each part of a vocabulary does to a text, on vocabularies small enough to see it.

use crate::support::{Kind, Vocabulary, published, strings};
use gguf::{Array, Value};
use tokenizer::{Bos, ControlTokens, Infill, Special, Tokenizer};

/// The text's tokens as text, which shows where it was cut.
fn pieces(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<String> {
    let tokens = tokenizer.encode(text, special, Bos::Skip);
    tokens.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect()
}

#[test]
fn threads_share_a_tokenizer() {
    fn check<T: Send + Sync>() {}
    check::<Tokenizer>();
}

#[test]
fn spm_merges_by_score_then_leftmost() {
    let tokenizer = Vocabulary::spm(&["bc", "ab", "cd", "aa", "▁", "a", "b", "c", "d"]).build();
    let check =
        |text, expected: &[&str]| assert_eq!(pieces(&tokenizer, text, Special::Text), expected, "{text}");
    check("abcd", &[" ", "a", "bc", "d"]);
    check("abd", &[" ", "ab", "d"]);
    check("aaa", &[" ", "aa", "a"]);
    check("aaaa", &[" ", "aa", "aa"]);
    check("", &[]);
}

#[test]
fn spm_falls_back_to_bytes_then_to_unknown() {
    let mut vocabulary = Vocabulary::spm(&["▁", "a"]);
    let tokenizer = vocabulary.build();
    assert_eq!(tokenizer.encode("aé", Special::Text, Bos::Skip), [259, 260, 3 + 0xc3, 3 + 0xa9]);

    vocabulary.key("tokenizer.ggml.tokens", strings(&["<unk>", "<s>", "</s>", "▁", "a"]));
    vocabulary.key("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 5])));
    vocabulary.key("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![2, 3, 3, 1, 1])));
    assert_eq!(vocabulary.build().encode("aé", Special::Text, Bos::Skip), [3, 4, 0, 0]);
}

#[test]
fn spm_prefixes_a_space_at_the_start_and_after_special_tokens() {
    let mut vocabulary = Vocabulary::spm(&["▁", "a"]);
    vocabulary.token("[X]", Kind::UserDefined);
    let check = |vocabulary: &Vocabulary, text, expected: &[&str]| {
        assert_eq!(pieces(&vocabulary.build(), text, Special::Parse), expected, "{text}");
    };
    check(&vocabulary, "a a", &[" ", "a", " ", "a"]);
    check(&vocabulary, "a[X]a<s>a", &[" ", "a", "[X]", " ", "a", "<s>", " ", "a"]);
    check(&vocabulary, "[X][X]", &["[X]", "[X]"]);
    vocabulary.key("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    check(&vocabulary, "a[X]a", &["a", "[X]", "a"]);
}

/// In Llama 2's vocabulary the pieces of `</s>` are tokens that would merge to it.
#[test]
fn plain_text_never_becomes_a_control_token() {
    let mut vocabulary = Vocabulary::spm(&["</", "s>", "<", "/", "s", ">", "▁"]);
    vocabulary.key("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer = vocabulary.build();
    assert_eq!(pieces(&tokenizer, "</s>", Special::Text), ["</", "s>"]);
    assert_eq!(tokenizer.encode("</s>", Special::Parse, Bos::Skip), [2]);

    // No pattern keeps this text together but one that also keeps whole words that are tokens.
    let mut vocabulary = Vocabulary::bpe("llama-bpe", &["E N", "EN D"]);
    vocabulary.token("ENDE", Kind::Control);
    assert_eq!(pieces(&vocabulary.build(), "ENDE", Special::Text), ["END", "E"]);
}

#[test]
fn bpe_merges_by_rank_then_leftmost() {
    let tokenizer = Vocabulary::bpe("gpt-2", &["b c", "a b", "Ġ a", "a a", "Ġa b", "Ã ©"]).build();
    let check =
        |text, expected: &[&str]| assert_eq!(pieces(&tokenizer, text, Special::Text), expected, "{text}");
    check("abc", &["a", "bc"]);
    check("ab", &["ab"]);
    check(" ab", &[" ", "ab"]);
    check(" aa", &[" a", "a"]);
    check("aaa", &["aa", "a"]);
    check("é", &["é"]);
    check("", &[]);
}

/// Merges may lead through a text that is no token, to one that is or to none.
#[test]
fn bpe_merges_through_what_is_no_token() {
    let mut vocabulary = Vocabulary::bpe("gpt-2", &[]);
    vocabulary.key("tokenizer.ggml.merges", strings(&["x y", "xy z", "malformed", ""]));
    vocabulary.token("xyz", Kind::Normal);
    let tokenizer = vocabulary.build();
    assert_eq!(pieces(&tokenizer, "xyzxy", Special::Text), ["xyz", "x", "y"]);
}

#[test]
fn llama_bpe_takes_words_that_are_tokens_whole() {
    for (pre, expected) in [("llama-bpe", &[" abc"][..]), ("gpt-2", &[" ", "abc"])] {
        let mut vocabulary = Vocabulary::bpe(pre, &["a b", "ab c"]);
        vocabulary.token("Ġabc", Kind::Normal);
        assert_eq!(pieces(&vocabulary.build(), " abc", Special::Text), expected, "{pre}");
    }
}

#[test]
fn special_tokens_are_found_as_written() {
    let mut vocabulary = Vocabulary::bpe("gpt-2", &[]);
    vocabulary.token("<|a|>", Kind::Control);
    vocabulary.token("<|a|><|b|>", Kind::Control);
    vocabulary.token("[tool]", Kind::UserDefined);
    let tokenizer = vocabulary.build();
    let check =
        |text, special, expected: &[&str]| assert_eq!(pieces(&tokenizer, text, special), expected, "{text}");
    check("x<|a|>", Special::Text, &["x", "<", "|", "a", "|", ">"]);
    check("x<|a|>y", Special::Parse, &["x", "<|a|>", "y"]);
    check("<|a|><|b|><|a|>", Special::Parse, &["<|a|><|b|>", "<|a|>"]);
    check("x[tool]y", Special::Text, &["x", "[tool]", "y"]);
    check("x[tool]y", Special::Parse, &["x", "[tool]", "y"]);
    check("[tool", Special::Parse, &["[", "t", "o", "o", "l"]);
}

/// Phi-3's special tokens take the white space after them, but for three.
#[test]
fn phi_3_strips_after_special_tokens() {
    let tokenizer = published("phi-3");
    let check =
        |text, expected: &[&str]| assert_eq!(pieces(&tokenizer, text, Special::Parse), expected, "{text}");
    check("<|user|> \n Hi<|end|>\n<|assistant|>", &["<|user|>", " Hi", "<|end|>", "<|assistant|>"]);
    check("<s> Hi", &["<s>", " ", " Hi"]);
    check("<|end|> \n", &["<|end|>"]);
}

#[test]
fn bos_and_eos_follow_the_file_then_the_kind() {
    let check = |vocabulary: &Vocabulary, expected: &[u32]| {
        assert_eq!(vocabulary.build().encode("", Special::Text, Bos::Add), expected);
        assert_eq!(vocabulary.build().encode("", Special::Text, Bos::Skip), [0u32; 0]);
    };
    let mut spm = Vocabulary::spm(&[]);
    check(&spm, &[1]);
    spm.key("tokenizer.ggml.add_eos_token", Value::Bool(true));
    check(&spm, &[1, 2]);
    spm.key("tokenizer.ggml.eos_token_id", Value::U32(0))
        .key("tokenizer.ggml.add_bos_token", Value::Bool(false));
    check(&spm, &[0]);

    for (pre, expected) in [("gpt-2", &[][..]), ("llama-bpe", &[7])] {
        let mut bpe = Vocabulary::bpe(pre, &[]);
        check(&bpe, &[]);
        bpe.key("tokenizer.ggml.bos_token_id", Value::U32(7));
        check(&bpe, expected);
        bpe.key("tokenizer.ggml.add_bos_token", Value::Bool(pre == "gpt-2"));
        check(&bpe, if pre == "gpt-2" { &[7] } else { &[] });
    }
}

#[test]
fn every_end_of_generation_is_known() {
    let mut vocabulary = Vocabulary::bpe("qwen2", &[]);
    let eot = vocabulary.token("<|my_end|>", Kind::Control);
    let eom = vocabulary.token("<|eom_id|>", Kind::Control);
    let end = vocabulary.token("<|im_end|>", Kind::UserDefined);
    let other = vocabulary.token("<|im_start|>", Kind::Control);
    let html = vocabulary.token("</s>", Kind::Normal);
    let eos = vocabulary.token("</the_end>", Kind::Control);
    vocabulary.key("tokenizer.ggml.eos_token_id", Value::U32(eos));
    vocabulary.key("tokenizer.ggml.eot_token_id", Value::U32(eot));
    let tokenizer = vocabulary.build();
    assert_eq!(tokenizer.eog_tokens(), [eot, eom, end, eos]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(eos)));
    assert!(
        tokenizer.is_eog(eom)
            && !tokenizer.is_eog(other)
            && !tokenizer.is_eog(html)
            && !tokenizer.is_eog(9999)
    );
    assert!(tokenizer.is_control(end) && !tokenizer.is_control(html) && !tokenizer.is_control(9999));
    assert_eq!(tokenizer.vocab_size(), eos as usize + 1);
}

/// gpt-oss ends its thoughts with a token that ends the answer in other vocabularies.
#[test]
fn the_end_of_a_message_is_not_that_of_an_answer_of_several() {
    let mut vocabulary = Vocabulary::bpe("gpt-2", &[]);
    let end = vocabulary.token("<|end|>", Kind::Control);
    let last = vocabulary.token("<|return|>", Kind::Control);
    vocabulary.key("tokenizer.ggml.eos_token_id", Value::U32(last));
    assert_eq!(vocabulary.build().eog_tokens(), [end, last]);
    let call = vocabulary.token("<|call|>", Kind::Control);
    let tokenizer = vocabulary.build();
    assert_eq!(tokenizer.eog_tokens(), [last, call]);
    assert!(tokenizer.is_control(end));
}

#[test]
fn control_tokens_show_or_hide() {
    let tokenizer = published("phi-3");
    let tokens = tokenizer.encode("<s><|user|>Hi<|end|>", Special::Parse, Bos::Skip);
    assert_eq!(tokenizer.decode(&tokens, ControlTokens::Show), "<s><|user|>Hi<|end|>");
    assert_eq!(tokenizer.decode(&tokens, ControlTokens::Hide), "Hi");
    let beyond = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.decode(&[beyond, u32::MAX], ControlTokens::Show), "");
    assert_eq!(tokenizer.token_bytes(beyond), b"");
}

#[test]
fn bad_metadata_is_an_error_that_names_it() {
    let check = |vocabulary: Vocabulary, key: &'static str, value: Value, expected: &str| {
        let mut vocabulary = vocabulary;
        vocabulary.key(key, value);
        let message = vocabulary.try_build().unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
    };
    let spm = || Vocabulary::spm(&["a"]);
    let bpe = || Vocabulary::bpe("gpt-2", &[]);
    let ints = |values: &[i32]| Value::Array(Array::I32(values.to_vec()));
    check(
        spm(),
        "tokenizer.ggml.model",
        Value::String("bert".into()),
        "\"bert\" is not supported; supported: llama, gpt2",
    );
    check(spm(), "tokenizer.ggml.model", Value::U32(1), "tokenizer.ggml.model");
    check(spm(), "tokenizer.ggml.tokens", Value::U32(1), "tokenizer.ggml.tokens");
    check(
        spm(),
        "tokenizer.ggml.scores",
        Value::Array(Array::F32(vec![0.0])),
        "\"tokenizer.ggml.scores\" has 1 elements; expected 260",
    );
    check(
        spm(),
        "tokenizer.ggml.token_type",
        ints(&[1, 2]),
        "\"tokenizer.ggml.token_type\" has 2 elements; expected 260",
    );
    check(bpe(), "tokenizer.ggml.token_type", ints(&[7; 256]), "element 0 is 7; expected 1 to 6");
    check(bpe(), "tokenizer.ggml.token_type", ints(&[6; 256]), "expected \"<0x00>\" to \"<0xFF>\"");
    check(bpe(), "tokenizer.ggml.bos_token_id", Value::I32(-1), "tokenizer.ggml.bos_token_id");

    let empty = gguf::Gguf::from_vec(gguf::GgufWriter::new().write()).unwrap();
    let message = Tokenizer::from_gguf(&empty).unwrap_err().to_string();
    assert!(message.contains("\"tokenizer.ggml.model\" is missing"), "{message}");
}

#[test]
fn what_cannot_be_meant_is_ignored_with_a_note() {
    let check = |vocabulary: Vocabulary, key: &'static str, value: Value, expected: &[&str]| {
        let plain = vocabulary.build();
        let mut vocabulary = vocabulary;
        let tokenizer = vocabulary.key(key, value).build();
        assert_eq!(tokenizer.notes(), expected);
        let text = "a few words, 12 é";
        let encode = |tokenizer: &Tokenizer| tokenizer.encode(text, Special::Parse, Bos::Add);
        assert_eq!(encode(&tokenizer), encode(&plain), "{key}");
        assert_eq!(tokenizer.eog_tokens(), plain.eog_tokens(), "{key}");
    };
    let bpe = || Vocabulary::bpe("default", &["a b"]);
    assert!(bpe().build().notes().is_empty());
    for (key, role) in [("eos", "eos_token_id"), ("unknown", "unknown_token_id"), ("eot", "eot_token_id")] {
        let name: &'static str = match key {
            "eos" => "tokenizer.ggml.eos_token_id",
            "unknown" => "tokenizer.ggml.unknown_token_id",
            _ => "tokenizer.ggml.eot_token_id",
        };
        let note = format!("tokenizer.ggml.{role} is ignored: expected a token below 257, found 4294967295");
        check(bpe(), name, Value::U32(u32::MAX), &[&note]);
    }
    check(
        bpe(),
        "tokenizer.ggml.add_bos_token",
        Value::Bool(true),
        &[
            "tokenizer.ggml.add_bos_token is ignored: expected a token in tokenizer.ggml.bos_token_id, found none",
        ],
    );
    check(
        bpe(),
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32([&[0; 7][..], &[1; 250]].concat())),
        &["7 tokens are taken for normal ones: tokenizer.ggml.token_type: expected 1 to 6, found 0"],
    );
    for (found, shown) in [("nope", "\"nope\""), ("", "none")] {
        let mut vocabulary = bpe();
        let tokenizer = vocabulary.key("tokenizer.ggml.pre", Value::String(found.into())).build();
        let [note] = tokenizer.notes() else { panic!("{:?}", tokenizer.notes()) };
        let expected = "texts are cut as by the pre-tokenizer \"default\": tokenizer.ggml.pre: expected one of default, llama-bpe,";
        assert!(note.starts_with(expected) && note.ends_with(&format!(", found {shown}")), "{note}");
    }
}

/// A prompt with a gap has the tokens that the file names by a key or by their texts.
#[test]
fn a_gap_is_filled_in_by_the_vocabulary_s_own_tokens() {
    let mut vocabulary = Vocabulary::spm(&["▁", "a", "b"]);
    let prefix = vocabulary.token("<PRE>", Kind::Control);
    let suffix = vocabulary.token("<SUF>", Kind::Control);
    assert!(!vocabulary.build().fills_in());
    let middle = vocabulary.token("gap", Kind::Control);
    vocabulary.key("tokenizer.ggml.fim_mid_token_id", Value::U32(middle));
    let tokenizer = vocabulary.build();
    let encode = |text| tokenizer.encode(text, Special::Text, Bos::Skip);
    let tokens = tokenizer.encode_infill(&Infill { prefix: "a", suffix: "b", files: &[] }).unwrap();
    let expect = [&[1, prefix][..], &encode("a"), &[suffix], &encode("b"), &[middle]].concat();
    assert_eq!(tokens, expect);
    // Spelled control tokens are text.
    let tokens = tokenizer.encode_infill(&Infill { prefix: "<PRE>", suffix: "", files: &[] }).unwrap();
    assert_eq!(tokens.iter().filter(|&&id| id == prefix).count(), 1);
    assert_eq!(tokens[tokens.len() - 2..], [suffix, middle]);
    let file = vocabulary.token("<|file_sep|>", Kind::Control);
    let with_file = vocabulary.build();
    let files = [("a".to_owned(), "b".to_owned())];
    let tokens = with_file.encode_infill(&Infill { prefix: "", suffix: "", files: &files }).unwrap();
    assert_eq!(tokens.iter().filter(|&&id| id == file).count(), 1);
}
