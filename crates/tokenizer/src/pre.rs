//! Pre-tokenizers: how text is cut into words before byte-level BPE, by `tokenizer.ggml.pre`.
//!
//! A pre-tokenizer is a list of patterns. The first cuts the text into what it matches and what lies between;
//! the next cuts each of these pieces again, and so on, as in a sequence of Hugging Face's `Split`
//! (isolated). The table below has the patterns of llama.cpp and of the models' own `tokenizer.json`; where
//! the former approximates the latter (case and marks of letters beyond ASCII), it has the latter, which the
//! model was trained with.
//!
//! Most patterns end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word after it.
//! A regular expression proper has no look-ahead. Instead the run is a pattern of its own that is tried last
//! ([`Pattern::then_space`]) and gives its last character back. So a word is found in one pass over it: there
//! is no back-tracking that could run into a limit.

use regex_automata::Input;
use regex_automata::meta::Regex;

/// How to cut text into words, and what goes with it by default.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    names: &'static [&'static str],
    patterns: &'static [Pattern],
    /// Whether a word that is a token becomes that token without merging.
    pub(crate) ignore_merges: bool,
    /// Whether a BOS is put in front of a text if the file does not say.
    pub(crate) add_bos: bool,
}

#[derive(Debug)]
struct Pattern {
    regex: &'static str,
    /// Whether a run of white space that the expression does not match is a word, less its last character.
    then_space: bool,
}

/// Words are what the expression matches, and what lies between.
const fn exactly(regex: &'static str) -> Pattern {
    Pattern { regex, then_space: false }
}

/// The expression continues with `|\s+(?!\S)|\s+`.
const fn and_space(regex: &'static str) -> Pattern {
    Pattern { regex, then_space: true }
}

const GPT2: Pattern = and_space(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");

const LLAMA3: Pattern = and_space(concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
));

const QWEN2: Pattern = and_space(concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
));

const QWEN35: Pattern = and_space(concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
));

/// OpenAI's `o200k`: words change at a capital letter, and keep their contraction.
const GPT4O: Pattern = and_space(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
));

const TEKKEN: Pattern = and_space(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
));

const BLOOM: Pattern = exactly(r" ?[^(\s|.,!?…。，、।۔،)]+");

const DIGIT: Pattern = exactly(r"\p{N}");
const UP_TO_3_DIGITS: Pattern = exactly(r"\p{N}{1,3}");
const LINE_BREAK: Pattern = exactly(r"[\r\n]");
const CJK: Pattern = exactly(r"[\x{800}-\x{9fa5}\x{ac00}-\x{d7ff}]+");
const CJK_AND_KANA: Pattern = exactly(r"[\x{4e00}-\x{9fa5}\x{3040}-\x{30ff}]+");

/// DeepSeek's letters: those with case, of the Latin, Greek, Cyrillic and some other scripts.
const CASED_WORD: Pattern = exactly(concat!(
    r"\s?[A-Za-z",
    r"\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}",
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}",
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}",
    r"\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}",
    r"\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}",
    r"\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}",
    r"\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}",
    r"\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}",
    r"\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}",
    r"\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}",
    r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}",
    r"\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}",
    r"\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}",
    r"]+"
));

const DEEPSEEK_V3: Pattern = and_space(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"
));

/// Every pre-tokenizer that is supported; the first name is the one to list.
static PRE_TOKENIZERS: &[PreTokenizer] = &[
    by_patterns(
        &["default"],
        &[exactly(r"[\p{P}$+<=>^~|]+"), GPT2, exactly(r"\p{N}+"), exactly("[0-9][0-9][0-9]")],
    ),
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    by_patterns(&["smaug-bpe", "dbrx", "chatglm-bpe", "glm4"], &[LLAMA3]),
    by_patterns(
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "grok-2", "kormo", "solar-open"],
        &[QWEN2],
    ),
    by_patterns(&["qwen35"], &[QWEN35]),
    by_patterns(
        &[
            "gpt-2",
            "mpt",
            "olmo",
            "phi-2",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "mellum",
            "a.x-4.0",
            "modern-bert",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
        ],
        &[GPT2],
    ),
    by_patterns(
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    by_patterns(&["falcon"], &[exactly(r"[\p{P}$+<=>^~|`]+"), GPT2, exactly("[0-9][0-9][0-9]")]),
    by_patterns(
        &["deepseek-llm"],
        &[
            LINE_BREAK,
            CASED_WORD,
            exactly(r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+"),
            exactly(r"\s+$"),
            CJK,
            exactly(r"\p{N}+"),
        ],
    ),
    by_patterns(&["deepseek-coder"], &[LINE_BREAK, exactly(r"\s?\p{L}+"), exactly(r"\s?\p{P}+"), CJK, DIGIT]),
    by_patterns(&["deepseek-v3", "hunyuan-dense", "joyai-llm"], &[UP_TO_3_DIGITS, CJK_AND_KANA, DEEPSEEK_V3]),
    PreTokenizer { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    by_patterns(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], &[GPT4O]),
    by_patterns(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM]),
    by_patterns(&["viking"], &[BLOOM, DIGIT]),
    by_patterns(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[and_space(concat!(
            r"'[sSdDmMtT]|'[lL][lL]|'[vV][eE]|'[rR][eE]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]"
        ))],
    ),
    by_patterns(
        &["seed-coder"],
        &[and_space(concat!(
            r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"
        ))],
    ),
];

const fn by_patterns(names: &'static [&'static str], patterns: &'static [Pattern]) -> PreTokenizer {
    PreTokenizer { names, patterns, ignore_merges: false, add_bos: false }
}

/// The pre-tokenizer that files call `name`.
pub(crate) fn by_name(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
}

/// All names that [`by_name`] knows.
pub(crate) fn supported() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied()
}

/// A pre-tokenizer ready to cut.
#[derive(Debug)]
pub(crate) struct Splitter {
    cuts: Vec<Regex>,
}

/// The pattern of a [`Splitter`]'s expression that matches a run of white space.
const SPACE_RUN: usize = 1;

impl Splitter {
    pub(crate) fn new(pre: &PreTokenizer) -> Self {
        let compile = |pattern: &Pattern| {
            let expressions = [pattern.regex, r"\s+"];
            Regex::new_many(&expressions[..1 + usize::from(pattern.then_space)])
                .expect("the patterns of the table are valid")
        };
        Splitter { cuts: pre.patterns.iter().map(compile).collect() }
    }

    /// Calls `f` with each word of `text`, in order; together they are the text.
    pub(crate) fn each_word<'t>(&self, text: &'t str, f: &mut dyn FnMut(&'t str)) {
        cut(text, &self.cuts, f);
    }
}

fn cut<'t>(text: &'t str, cuts: &[Regex], f: &mut dyn FnMut(&'t str)) {
    let Some((regex, further)) = cuts.split_first() else {
        if !text.is_empty() {
            f(text);
        }
        return;
    };
    let mut done = 0;
    while let Some(found) = regex.search(&Input::new(text).range(done..)) {
        let mut end = found.end();
        if found.pattern().as_usize() == SPACE_RUN && end < text.len() {
            let (last, _) = text[found.range()].char_indices().next_back().expect("a run is not empty");
            if last > 0 {
                end = found.start() + last;
            }
        }
        cut(&text[done..found.start()], further, f);
        cut(&text[found.start()..end], further, f);
        done = end;
    }
    cut(&text[done..], further, f);
}
