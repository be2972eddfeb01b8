//! The tokenizer itself: special tokens of a text, and the tokens added before and after it.

use std::time::{Duration, SystemTime};

use gguf::{Gguf, Metadata};

use crate::bpe::{Bpe, decode_text};
use crate::chat::{Chat, ChatMessage, ChatTemplate, GenerationPrompt, TemplateTokens};
use crate::error::{Result, TokenizerError};
use crate::infill::InfillTokens;
use crate::special::{Fragment, Matcher};
use crate::spm::{SPACE, Spm};
use crate::vocab::{Kind, Model, Roles, Vocab};

/// A model's vocabulary, both ways. Nothing in it changes after it is built; threads share it.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    /// What each token is in text.
    bytes: Vec<Box<[u8]>>,
    kinds: Vec<Kind>,
    roles: Roles,
    /// `None` if the vocabulary has no tokens for texts with gaps.
    infill: Option<InfillTokens>,
    add_space_prefix: bool,
    /// Finds user-defined tokens, which are special in any text.
    user_defined: Matcher,
    /// Finds these and control tokens.
    special: Matcher,
    /// Finds the tokens of a chat that its template alone may write.
    chat_control: Matcher,
    /// Finds the user-defined tokens that a chat's messages may write too.
    chat_text: Matcher,
    chat_template: Option<std::result::Result<ChatTemplate, String>>,
    /// For chats with tools, if the file has one.
    tool_template: Option<std::result::Result<ChatTemplate, String>>,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Encoder {
    Spm(Spm),
    Bpe(Bpe),
}

/// What control tokens spelled in a text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Text like any other: for what a user wrote.
    Text,
    /// Control tokens: for what a program wrote.
    Parse,
}

/// Whether a text gets the BOS (and EOS) that the file's policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bos {
    /// Added if the file's policy is to add it: `tokenizer.ggml.add_bos_token`, `add_eos_token`, or the
    /// kind's default.
    Add,
    /// Not added.
    Skip,
}

impl Tokenizer {
    /// Reads the tokenizer of a file: the metadata under `tokenizer.`; neither architecture nor tensors
    /// matter.
    ///
    /// # Errors
    /// If a key is missing or malformed, or names a model (other than `llama` and `gpt2`) that is not supported. A chat template that does not parse is an error of [`Tokenizer::chat_template`]
    /// only.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        Self::from_metadata(gguf.metadata())
    }

    /// As [`Tokenizer::from_gguf`], for a file of which only the metadata was read.
    ///
    /// # Errors
    /// As `from_gguf`.
    pub fn from_metadata(metadata: &Metadata) -> Result<Tokenizer> {
        let vocab = Vocab::read(metadata)?;
        let encoder = match &vocab.model {
            Model::Spm { scores } => Encoder::Spm(Spm::new(&vocab, scores)?),
            Model::Bpe { merges, pre } => Encoder::Bpe(Bpe::new(&vocab, merges, pre)),
        };
        let bytes = (0..vocab.texts.len()).map(|id| text_bytes(&vocab, id)).collect::<Result<_>>()?;
        let is_chat_control = |id, _| vocab.is_chat_control(id);
        let mut tokenizer =
            Tokenizer {
                encoder,
                bytes,
                user_defined: Matcher::new(vocab.special_tokens(|_, kind| kind == Kind::UserDefined)),
                special: Matcher::new(vocab.special_tokens(|_, kind| {
                    matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined)
                })),
                chat_control: Matcher::new(vocab.special_tokens(is_chat_control)),
                chat_text: Matcher::new(
                    vocab.special_tokens(|id, kind| kind == Kind::UserDefined && !vocab.is_chat_control(id)),
                ),
                chat_template: None,
                tool_template: None,
                add_space_prefix: vocab.add_space_prefix,
                kinds: vocab.kinds,
                roles: vocab.roles,
                infill: InfillTokens::read(metadata, vocab.texts)?,
                notes: vocab.notes,
            };
        let template = |key| -> Result<_> {
            // An empty one would lose every message.
            let source = metadata.str(key)?.filter(|source| !source.trim().is_empty());
            Ok(source.map(|source| tokenizer.template(source).map_err(|error| error.to_string())))
        };
        (tokenizer.chat_template, tokenizer.tool_template) =
            (template("tokenizer.chat_template")?, template("tokenizer.chat_template.tool_use")?);
        Ok(tokenizer)
    }

    /// The same tokenizer with another chat template than the file's, for chats with tools too.
    ///
    /// # Errors
    /// If it does not parse.
    pub fn with_chat_template(mut self, source: &str) -> Result<Self> {
        let template = self.template(source);
        let template = template.map_err(|error| TokenizerError::ChatTemplateSyntax(error.to_string()))?;
        (self.chat_template, self.tool_template) = (Some(Ok(template)), None);
        Ok(self)
    }

    /// The same tokenizer whose chat templates are told that it is `time`, whenever they ask.
    #[must_use]
    pub fn with_template_time(mut self, time: SystemTime) -> Self {
        self.chat_templates_mut().for_each(|template| template.set_time(time));
        self
    }

    /// The same tokenizer whose chat templates may take so long for a rendering, instead of 10 s. One that takes longer is an
    /// error, once a step of it ends: a turn of a loop, a call of a macro, an item that is counted or something that is written.
    #[must_use]
    pub fn with_template_time_limit(mut self, limit: Duration) -> Self {
        self.chat_templates_mut().for_each(|template| template.set_time_limit(limit));
        self
    }

    /// Those that the file has and that parse.
    fn chat_templates_mut(&mut self) -> impl Iterator<Item = &mut ChatTemplate> {
        [&mut self.chat_template, &mut self.tool_template].into_iter().flatten().flatten()
    }

    fn template(&self, source: &str) -> std::result::Result<ChatTemplate, minijinja::Error> {
        let text = |id: u32| String::from_utf8_lossy(self.token_bytes(id)).into_owned();
        let tokens = TemplateTokens {
            bos: self.roles.bos.map(text),
            eos: self.roles.eos.map(text),
            unknown: self.roles.unknown.map(text),
            padding: self.roles.padding.map(text),
        };
        let control_tokens: Vec<String> = self.chat_control.ids().map(text).collect();
        ChatTemplate::new(source, tokens, control_tokens.iter().map(String::as_str))
    }

    /// The tokens of `text`. An empty text has none but those that [`Bos::Add`] adds.
    pub fn encode(&self, text: &str, special: Special, bos: Bos) -> Vec<u32> {
        let mut encoding = Encoding::new(self);
        let matcher = match special {
            Special::Text => &self.user_defined,
            Special::Parse => &self.special,
        };
        if bos == Bos::Add {
            encoding.tokens.extend(self.roles.added_bos);
        }
        matcher.split(text, |fragment| encoding.push(fragment));
        if bos == Bos::Add {
            encoding.tokens.extend(self.roles.added_eos);
        }
        encoding.tokens
    }

    /// The tokens of a chat, by the model's template, with the BOS that the file's policy asks for if the
    /// template does not write it. Control tokens come from the template alone: in a message's content they
    /// are plain text.
    ///
    /// # Errors
    /// If there is no template, it does not parse, or it refuses these messages; or if a role is not a word.
    pub fn apply_chat_template(
        &self,
        messages: &[ChatMessage],
        prompt: GenerationPrompt,
    ) -> Result<Vec<u32>> {
        self.encode_chat(&Chat::new(messages, prompt))
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), for a chat that may have tools: with these, by
    /// [`tool_template`](Self::tool_template).
    ///
    /// # Errors
    /// As `apply_chat_template`.
    pub fn encode_chat(&self, chat: &Chat<'_>) -> Result<Vec<u32>> {
        let template = if chat.tools.is_empty() { self.chat_template()? } else { self.tool_template()? };
        let rendered = template.render_guarded(chat)?;
        let mut encoding = Encoding::new(self);
        self.chat_control.split(rendered.guarded(), |fragment| match fragment {
            Fragment::Token(_) => encoding.push(fragment),
            Fragment::Text(text) => {
                self.chat_text.split(&rendered.restore(text), |fragment| encoding.push(fragment));
            }
        });
        let mut tokens = encoding.tokens;
        if let Some(bos) = self.roles.added_bos.filter(|&bos| tokens.first() != Some(&bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// What the file says of its tokenizer that was ignored, because it cannot be meant or is not known: a sentence for each,
    /// which names the key.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// If the file has none, or it does not parse.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        parsed(&self.chat_template)
    }

    /// The model's template for chats with tools: `tokenizer.chat_template.tool_use`, or else
    /// [the one for all](Self::chat_template).
    ///
    /// # Errors
    /// As `chat_template`.
    pub fn tool_template(&self) -> Result<&ChatTemplate> {
        if self.tool_template.is_none() { self.chat_template() } else { parsed(&self.tool_template) }
    }

    /// The control token that is spelled so.
    pub fn control_token(&self, text: &str) -> Option<u32> {
        match self.encode(text, Special::Parse, Bos::Skip).as_slice() {
            &[id] if self.is_control(id) && self.token_bytes(id) == text.as_bytes() => Some(id),
            _ => None,
        }
    }

    /// Whether encoding puts a space before a text, which decoding removes.
    pub(crate) fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// The bytes a token stands for, not always whole characters. None for an id beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn infill(&self) -> Option<&InfillTokens> {
        self.infill.as_ref()
    }

    /// The token that encoding puts before a text, if the file's policy is to add one.
    pub(crate) fn added_bos(&self) -> Option<u32> {
        self.roles.added_bos
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// All tokens after which generation ends (end of text, of turn, of message, ..), ascending.
    pub fn eog_tokens(&self) -> &[u32] {
        &self.roles.eog
    }

    /// Whether generation ends after this token.
    pub fn is_eog(&self, id: u32) -> bool {
        self.roles.eog.binary_search(&id).is_ok()
    }

    /// Whether the token steers the model and has no text of its own.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.kinds.get(id as usize), Some(Kind::Control | Kind::Unknown))
    }

    /// Whether encoding puts a space in front of a text after this token.
    pub(crate) fn adds_space_after(&self, id: u32) -> bool {
        self.add_space_prefix
            && matches!(self.kinds.get(id as usize), Some(Kind::Control | Kind::UserDefined))
    }
}

fn parsed(template: &Option<std::result::Result<ChatTemplate, String>>) -> Result<&ChatTemplate> {
    match template {
        None => Err(TokenizerError::NoChatTemplate),
        Some(Err(error)) => Err(TokenizerError::ChatTemplateSyntax(error.clone())),
        Some(Ok(template)) => Ok(template),
    }
}

/// Tokens being put together, fragment by fragment.
struct Encoding<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Whether a text that comes next gets the space prefix: at the beginning and after a special token.
    prefixes: bool,
}

impl<'a> Encoding<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Encoding { tokenizer, tokens: Vec::new(), prefixes: tokenizer.add_space_prefix }
    }

    fn push(&mut self, fragment: Fragment<'_>) {
        match (fragment, &self.tokenizer.encoder) {
            (Fragment::Token(id), _) => self.tokens.push(id),
            (Fragment::Text(text), Encoder::Spm(spm)) => spm.encode(text, self.prefixes, &mut self.tokens),
            (Fragment::Text(text), Encoder::Bpe(bpe)) => bpe.encode(text, &mut self.tokens),
        }
        self.prefixes = self.tokenizer.add_space_prefix && matches!(fragment, Fragment::Token(_));
    }
}

/// The bytes that a token stands for in text.
fn text_bytes(vocab: &Vocab<'_>, id: usize) -> Result<Box<[u8]>> {
    let text = &vocab.texts[id];
    Ok(match (vocab.kinds[id], &vocab.model) {
        (Kind::Byte, _) => [vocab.byte(id)?].into(),
        (Kind::Control | Kind::Unknown, _) => text.as_bytes().into(),
        (_, Model::Spm { .. }) => text.replace(SPACE, " ").into_bytes().into(),
        (Kind::UserDefined, Model::Bpe { .. }) => text.as_bytes().into(),
        (_, Model::Bpe { .. }) => decode_text(text).into(),
    })
}
