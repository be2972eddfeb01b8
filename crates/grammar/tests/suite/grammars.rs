//! Regular expressions, choices, grammars and rules.

use grammar::{GrammarError, Grammars, Rule, Spec};
use serde_json::json;

use crate::vocabulary::{accepts, compile, grammars, sample, tokenizer};

fn check(spec: &Spec, good: &[&str], bad: &[&str]) {
    let grammar = compile(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"));
    good.iter().for_each(|text| assert!(accepts(&grammar, text), "{spec:?} refuses {text:?}"));
    bad.iter().for_each(|text| assert!(!accepts(&grammar, text), "{spec:?} accepts {text:?}"));
}

#[test]
fn an_object_is_any_object() {
    check(&Spec::JsonObject, &["{}", "{\"a\": [1, {\"b\": null}]}"], &["[]", "1", " {}", "{\"a\": }"]);
}

#[test]
fn expressions_match_the_whole_text() {
    check(&Spec::Regex("^[a-c]+/\\d{2}$".to_owned()), &["abc/12"], &["abc/1", "abc/123", "d/12"]);
    check(&Spec::Regex("yes|no".to_owned()), &["yes", "no"], &["yesno", "y"]);
    assert!(matches!(compile(&Spec::Regex("(a".to_owned())), Err(GrammarError::Regex(_))));
    assert!(matches!(compile(&Spec::Regex("^$".to_owned())), Err(GrammarError::Regex(_))));
}

#[test]
fn choices_are_taken_as_written() {
    let choices = ["a", "ab", "a.c", "x / y", "é\n\"q\"#"].map(str::to_owned).to_vec();
    check(&Spec::Choice(choices), &["a", "ab", "a.c", "x / y", "é\n\"q\"#"], &["abc", "x", "b", ""]);
    for choices in [vec![], vec![String::new()]] {
        assert!(matches!(compile(&Spec::Choice(choices)), Err(GrammarError::Choice { .. })));
    }
}

#[test]
fn lark_grammars_are_followed() {
    let text = "start: item (\",\" item)*\nitem: WORD \"=\" /[0-9]+/\nWORD: /[a-z]+/\n";
    check(&Spec::Lark(text.to_owned()), &["a=1", "a=1,bc=23"], &["a", "a=1,", "A=1"]);
    for text in ["start: undefined", "start: \"a\" %json {}", "rule: \"a\""] {
        assert!(matches!(compile(&Spec::Lark(text.to_owned())), Err(GrammarError::Lark(_))), "{text}");
    }
}

#[test]
fn gbnf_grammars_are_followed() {
    let gbnf = |text: &str| Spec::Gbnf(text.to_owned());
    check(&gbnf("root ::= \"a\" [b-d]+ \"d\" | \"xy\"?"), &["abd", "abcdd", "xy"], &["ad", "ab", "x"]);
    // The longest lexeme is not always the right one.
    check(&gbnf("root ::= \"a\" \"b\" \"c\" | \"ab\" \"d\""), &["abc", "abd"], &["ab"]);
    let arithmetic = "root ::= term (op term)*\nop ::= [-+*/]\nterm ::= [0-9]+ | \"(\" root \")\"";
    check(&gbnf(arithmetic), &["1", "1+22", "(1-(2*3))/4"], &["(1", "1+", ")"]);
    let nested = "root ::= \"[\" (root (\", \" root)*)? \"]\" | \"true\" | \"tree\" # both begin alike\n";
    check(&gbnf(nested), &["[]", "[true, [tree]]"], &["[true", "trx"]);
    for seed in 0..20 {
        let text = sample(&compile(&gbnf(arithmetic)).unwrap(), seed, 400).unwrap_or_default();
        assert!(text.bytes().all(|byte| b"0123456789()+-*/".contains(&byte)), "{text}");
    }
}

fn call() -> Rule {
    let arguments = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false});
    Rule::Seq(vec![
        Rule::text("\n{\"name\": \"f\", \"arguments\": "),
        Rule::Json(arguments),
        Rule::text("}\n</tool_call>"),
    ])
}

#[test]
fn rules_put_text_and_json_together() {
    let good = "\n{\"name\": \"f\", \"arguments\": {\"x\": 5}}\n</tool_call>";
    check(&Spec::Rule(call()), &[good], &["", &good[1..], &good.replace('5', "\"5\"")]);
    let twice = Rule::Repeat(Box::new(call()), 1, Some(2));
    check(&Spec::Rule(twice), &[good, &good.repeat(2)], &["", &good.repeat(3)]);
    let either = Rule::Any(vec![Rule::Regex("[a-c]{2}".to_owned()), Rule::text("x").optional()]);
    check(&Spec::Rule(either), &["ab", "x", ""], &["abc", "xx"]);
    let end = Rule::Seq(vec![Rule::text("a"), Rule::Token(0)]);
    assert!(compile(&Spec::Rule(end)).is_ok());
}

#[test]
fn a_lazy_grammar_sets_in_after_its_opening() {
    let spec = Spec::After(vec!["<tool_call>".to_owned()], call());
    let good = "\n{\"name\": \"f\", \"arguments\": {\"x\": 5}}\n</tool_call>";
    let all = ["free", "a <tool_call", &format!("text <tool_call>{good}")];
    check(
        &spec,
        &all,
        &[&format!("<tool_call>{}", &good[1..]), &format!("<tool_call>{good}x"), "<tool_call>"],
    );
    // A token may end in the middle of what follows.
    let grammar = compile(&spec).unwrap();
    let mut constraint = grammar.start();
    let token = |text: &str| {
        let tokenizer = grammars().tokenizer();
        (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id) == text.as_bytes()).unwrap()
    };
    constraint.commit(token("<tool_call>")).unwrap();
    assert!(!constraint.is_free() && !constraint.mask().unwrap().allows(token("foo")));
    constraint.commit(token("\n")).unwrap();
    assert!(constraint.mask().unwrap().allows(token("{\"")));
}

#[test]
fn texts_do_not_share_their_state() {
    let grammar = compile(&Spec::Regex("ab|cd".to_owned())).unwrap();
    let (mut one, mut other) = (grammar.start(), grammar.start());
    let byte = |byte: u8| u32::from(byte) + 1;
    one.commit(byte(b'a')).unwrap();
    other.commit(byte(b'c')).unwrap();
    assert!(one.mask().unwrap().allows(byte(b'b')) && other.mask().unwrap().allows(byte(b'd')));
    assert!(one.commit(byte(b'x')).is_err());
    assert!(other.commit(byte(b'd')).is_ok() && other.is_finished());
}

#[test]
fn an_equal_grammar_is_compiled_once() {
    let grammars = Grammars::new(tokenizer());
    let compile = |text: &str| grammars.compile(&Spec::Regex(text.to_owned())).unwrap();
    let first = compile("a+");
    assert!(first == compile("a+") && first != compile("b+"));
    (0..40).for_each(|n| drop(compile(&format!("a{{{}}}", n + 1))));
    assert!(first != compile("a+"), "the oldest goes first");
}
