//! A request's body becomes sequences for the engine.

use std::collections::BTreeSet;

use rustorch_llama::{
    Bos, ControlTokens, Dry, EmbeddingRequest, Grammars, Infill, Mirostat, Pooling, Request, SamplingParams,
    Special, Tokenizer, Xtc,
};

use crate::Endpoint;
use crate::answer::{Answer, Kind, Prompts};
use crate::body::{
    ChatBody, Common, CompletionBody, EmbeddingBody, MaxTokens, Prompt, Sampling, StreamOptions,
};
use crate::embeddings::EmbeddingFormat;
use crate::error::ApiError;
use crate::field_list::UnknownFields;
use crate::fields::{Object, refused};
use crate::limits;
use crate::rerank::{Comparison, RerankBody, ScoreBody};
use crate::stream::Style;
use crate::structured::{Form, Structured};
use crate::tools::{Reading, ToolFields, converse};
use crate::work::{Rename, Sequences, Work};
use crate::{anthropic, llamacpp, ollama, responses};

/// OpenAI's default for completions.
const DEFAULT_MAX_TOKENS: usize = 16;
/// Most sequences of one request.
const MAX_CHOICES: usize = 128;
/// Most texts of one request for embeddings, as in OpenAI's API.
const MAX_INPUTS: usize = 2048;

/// The model and the defaults that a body is read with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Compiles the grammars that bodies ask for.
    pub grammars: &'a Grammars,
    /// The model's name in answers.
    pub model: &'a str,
    /// Names that requests may use for it.
    pub names: ModelNames<'a>,
    /// Length of the model's embeddings.
    pub hidden_size: usize,
    /// How embeddings are pooled that do not say it.
    pub pooling: Pooling,
    /// What `system_fingerprint` of answers is: the same as long as the same request with the same seed gets the same answer.
    pub fingerprint: Option<&'a str>,
    /// The seed of a request without one.
    pub seed: u64,
    /// What is done with fields that nobody knows.
    pub unknown_fields: UnknownFields,
}

/// Which values of `model` are accepted.
#[derive(Debug, Clone, Copy)]
pub enum ModelNames<'a> {
    /// All; the one model answers.
    Any,
    /// These, and a request without a name.
    OneOf(&'a [String]),
}

impl ModelNames<'_> {
    /// Whether a request may use this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(names) => names.iter().any(|known| known == name),
        }
    }
}

/// A request that can be submitted.
#[derive(Debug)]
pub struct Prepared {
    /// For the engine.
    pub work: Work,
    /// Collects the events.
    pub answer: Answer,
    /// `None` if the answer is not streamed.
    pub stream: Option<StreamOptions>,
    /// Names of the body's fields that nobody knows, which had no effect; those of nested objects after a path.
    pub ignored: BTreeSet<String>,
}

impl Prepared {
    /// Tokens of the prompts. One is counted once, however many choices it has.
    pub fn num_prompt_tokens(&self) -> usize {
        self.work.prompts().step_by(self.answer.n).map(<[u32]>::len).sum()
    }
}

/// Reads a body for an endpoint: tokenises its prompts and resolves its parameters.
///
/// # Errors
/// 400 naming the field that is wrong, or 404 for a model that is not served.
pub fn prepare(endpoint: Endpoint, body: &Object, context: &Context<'_>) -> Result<Prepared, ApiError> {
    limits::check(body)?;
    let ignored = endpoint.fields().check(body, context.unknown_fields)?;
    let (work, answer, stream) = match endpoint {
        Endpoint::Completions => completion(body, context)?,
        Endpoint::ChatCompletions => chat(body, context)?,
        Endpoint::Embeddings => embeddings(EmbeddingBody::read(body)?, context)?,
        Endpoint::Rerank => {
            let body = RerankBody::read(body)?;
            let (pooling, most) = (body.pooling, body.truncate_prompt_tokens);
            compare(body.model.as_deref(), body.texts(), pooling, most, context)?
        }
        Endpoint::Score => {
            let body = ScoreBody::read(body)?;
            let (pooling, most) = (body.pooling, body.truncate_prompt_tokens);
            compare(body.model.as_deref(), body.texts()?, pooling, most, context)?
        }
        Endpoint::Responses => {
            let (chat_body, style) = responses::convert(body)?;
            in_blocks(&chat_body, Box::new(style), context).map_err(responses::renamed)?
        }
        Endpoint::Messages => {
            let chat_body = anthropic::convert(body, MaxTokens::Unset)?;
            in_blocks(&chat_body, Box::new(anthropic::Style), context).map_err(anthropic::renamed)?
        }
        Endpoint::LlamaCompletion => {
            let (converted, style) = llamacpp::completion(body, context)?;
            styled(completion(&converted, context), Box::new(style), context).map_err(llamacpp::renamed)?
        }
        Endpoint::LlamaInfill => {
            let (converted, style) = llamacpp::infill(body, context)?;
            styled(completion(&converted, context), Box::new(style), context).map_err(llamacpp::renamed)?
        }
        Endpoint::OllamaChat => {
            let converted = ollama::chat(body, context)?;
            let style = Box::new(ollama::Style::new(ollama::Form::Chat));
            styled(chat(&converted, context), style, context).map_err(ollama::renamed)?
        }
        Endpoint::OllamaGenerate => {
            let asked = match ollama::generate(body, context)? {
                ollama::Converted::Chat(converted) => chat(&converted, context),
                ollama::Converted::Completion(converted) => completion(&converted, context),
            };
            let style = Box::new(ollama::Style::new(ollama::Form::Generate));
            styled(asked, style, context).map_err(ollama::renamed)?
        }
        Endpoint::OllamaEmbed => {
            let (converted, cuts) = ollama::embed(body, context)?;
            let (work, answer, stream) = embeddings(EmbeddingBody::read(&converted)?, context)?;
            (Work { cuts, ..work }, answer.in_ollamas_form(), stream)
        }
    };
    Ok(Prepared { work: Work { rename: rename(endpoint), ..work }, answer, stream, ignored })
}

/// How errors of what a body was converted to become its own.
fn rename(endpoint: Endpoint) -> Rename {
    match endpoint {
        Endpoint::Responses => responses::renamed,
        Endpoint::Messages => anthropic::renamed,
        Endpoint::LlamaCompletion | Endpoint::LlamaInfill => llamacpp::renamed,
        Endpoint::OllamaChat | Endpoint::OllamaGenerate | Endpoint::OllamaEmbed => ollama::renamed,
        Endpoint::Completions
        | Endpoint::ChatCompletions
        | Endpoint::Embeddings
        | Endpoint::Rerank
        | Endpoint::Score => same,
    }
}

fn same(error: ApiError) -> ApiError {
    error
}

/// What a body's fields ask for.
type Asked = (Work, Answer, Option<StreamOptions>);

fn completion(body: &Object, context: &Context<'_>) -> Result<Asked, ApiError> {
    let (common, form) = (Common::read(body)?, Structured::read(body)?.demand()?);
    let sampling = Sampling::read(body)?;
    let body = CompletionBody::read(body)?;
    check_model(common.model.as_deref(), context)?;
    let n = checked_n("n", common.n, body.prompt.len())?;
    body.check(common.n.unwrap_or(1), common.stream)?;
    let num_tried = checked_n("best_of", body.best_of.or(common.n), body.prompt.len())?;
    let stream = common.streaming()?;
    let (unset, listed) = (common.max_tokens == MaxTokens::Unset, common.prompt_logprobs);
    let (most, keeps_stop) = (common.truncate_prompt_tokens, common.include_stop_str_in_output);
    let (returns_ids, is_timed) = (common.return_token_ids, common.timings_per_token);
    let mut params = sampling_params(common, sampling, context.seed);
    if unset {
        params.max_tokens = Some(DEFAULT_MAX_TOKENS);
    }
    // The best are known by their log-probabilities.
    params.logprobs = body.logprobs.or((num_tried > n).then_some(0));
    let echoed = body.logprobs.filter(|_| body.echo);
    params.prompt_logprobs = listed.max(echoed);
    let mut texts = if body.echo { body.prompt.texts(context.tokenizer) } else { Vec::new() };
    let mut prompts = match &body.suffix {
        Some(suffix) if !suffix.is_empty() => infill(body.prompt, suffix, context.tokenizer)?,
        _ => body.prompt.tokens(context.tokenizer),
    };
    for (index, prompt) in prompts.iter_mut().enumerate() {
        if truncate(prompt, most) && body.echo {
            texts[index] = context.tokenizer.decode(prompt, ControlTokens::Show);
        }
    }
    let answer = Answer::new(Kind::Completion, context, prompts.len(), num_tried, body.logprobs)
        .to(Prompts { token_ids: prompts.clone(), texts, listed, keeps_stop, returns_ids })
        .with_best(n)
        .shown(params.control_tokens, is_timed);
    let form = form.map(|form| form.compile(context.grammars)).transpose()?;
    Ok((
        Work { is_length_given: !unset, ..work(&prompts, num_tried, &params, form.as_ref()) },
        answer.with_form_field(form.map(|form| form.field)),
        stream,
    ))
}

fn chat(fields: &Object, context: &Context<'_>) -> Result<Asked, ApiError> {
    let (mut common, form) = (Common::read(fields)?, Structured::read(fields)?.demand()?);
    let sampling = Sampling::read(fields)?;
    let body = ChatBody::read(fields)?;
    check_model(common.model.as_deref(), context)?;
    if body.max_completion_tokens != MaxTokens::Unset {
        common.max_tokens = body.max_completion_tokens;
    }
    let n = checked_n("n", common.n, 1)?;
    let (stream, listed) = (common.streaming()?, common.prompt_logprobs);
    let (most, keeps_stop) = (common.truncate_prompt_tokens, common.include_stop_str_in_output);
    let (returns_ids, is_timed) = (common.return_token_ids, common.timings_per_token);
    let mut params = sampling_params(common, sampling, context.seed);
    params.logprobs = body.alternatives()?;
    params.prompt_logprobs = listed;
    let ending = body.ending()?;
    let ChatBody { messages, chat_template_kwargs, reasoning_effort, reasoning_format, .. } = body;
    let tools = ToolFields::read(fields)?;
    let variables = with_effort(chat_template_kwargs, reasoning_effort, context)?;
    let variables = variables.as_ref();
    let conversation = converse(messages, tools, reasoning_format, (variables, ending), form, context)?;
    let form = conversation.form;
    let mut prompts = [conversation.prompt];
    truncate(&mut prompts[0], most);
    let work = work(&prompts, n, &params, form.as_ref());
    let answer = Answer::new(Kind::Chat, context, 1, n, params.logprobs).to(Prompts {
        token_ids: prompts.to_vec(),
        texts: Vec::new(),
        listed,
        keeps_stop,
        returns_ids,
    });
    let answer = answer.shown(params.control_tokens, is_timed);
    let reading = match params.control_tokens {
        ControlTokens::Hide => conversation.reading,
        ControlTokens::Show => conversation.reading.map(Reading::of_shown_text),
    };
    Ok((work, answer.with_form_field(form.map(|form| form.field)).read_by(reading), stream))
}

/// The template's variables with that of an effort, unless they have it already.
fn with_effort(
    variables: Option<Object>,
    effort: Option<&str>,
    context: &Context<'_>,
) -> Result<Option<Object>, ApiError> {
    const FIELD: &str = "reasoning_effort";
    let Some(effort) = effort else { return Ok(variables) };
    let source = context.tokenizer.chat_template().map_or("", |template| template.source());
    let (name, value) = match effort {
        _ if source.contains(FIELD) => (FIELD, effort.into()),
        "none" if source.contains("enable_thinking") => ("enable_thinking", false.into()),
        "none" => return Ok(variables),
        _ => {
            let rest =
                format_args!("expected \"none\", as the model's template knows no other, found {effort:?}");
            return Err(refused(FIELD, rest));
        }
    };
    let mut variables = variables.unwrap_or_default();
    variables.entry(name).or_insert(value);
    Ok(Some(variables))
}

/// A chat whose answer is a list of blocks.
fn in_blocks(fields: &Object, style: Box<dyn Style>, context: &Context<'_>) -> Result<Asked, ApiError> {
    styled(chat(fields, context), style, context)
}

/// What is asked, with an answer in blocks.
fn styled(
    asked: Result<Asked, ApiError>,
    style: Box<dyn Style>,
    context: &Context<'_>,
) -> Result<Asked, ApiError> {
    let (work, answer, stream) = asked?;
    let lengths: Vec<_> = work.prompts().map(<[u32]>::len).collect();
    Ok((work, answer.styled_by(style, &lengths, context.grammars.tokenizer()), stream))
}

/// Number of tokens of the prompt that a body of `/v1/messages` makes, and the names of its fields that nobody knows.
/// `max_tokens` may be missing.
///
/// # Errors
/// Those of [`prepare`].
pub fn count_tokens(body: &Object, context: &Context<'_>) -> Result<(usize, BTreeSet<String>), ApiError> {
    limits::check(body)?;
    let ignored = Endpoint::Messages.fields().check(body, context.unknown_fields)?;
    let chat_body = anthropic::convert(body, MaxTokens::Context)?;
    let (work, ..) = chat(&chat_body, context).map_err(anthropic::renamed)?;
    Ok((work.prompts().next().map_or(0, <[u32]>::len), ignored))
}

fn embeddings(body: EmbeddingBody, context: &Context<'_>) -> Result<Asked, ApiError> {
    check_model(body.model.as_deref(), context)?;
    let all = 1..=context.hidden_size;
    if let Some(found) = body.dimensions.filter(|dimensions| !all.contains(dimensions)) {
        let rest = format!("expected 1 to {}, all that the model has, found {found}", context.hidden_size);
        return Err(refused("dimensions", rest));
    }
    let found = body.input.len();
    if !(1..=MAX_INPUTS).contains(&found) {
        return Err(refused("input", format_args!("expected 1 to {MAX_INPUTS} texts, found {found}")));
    }
    let pooling = body.pooling.unwrap_or(context.pooling);
    let request = |mut prompt_token_ids| {
        truncate(&mut prompt_token_ids, body.truncate_prompt_tokens);
        EmbeddingRequest { prompt_token_ids, pooling, ..EmbeddingRequest::default() }
    };
    let requests = body.input.tokens(context.tokenizer).into_iter().map(request).collect();
    let format =
        EmbeddingFormat { encoding: body.encoding_format, dimensions: body.dimensions, is_ollamas: false };
    let answer = Answer::new(Kind::Embedding(format), context, found, 1, None);
    Ok((
        Work {
            sequences: Sequences::Embed(requests),
            form_field: None,
            is_length_given: true,
            cuts: false,
            rename: same,
        },
        answer,
        None,
    ))
}

/// Embeds texts to compare them.
fn compare(
    model: Option<&str>,
    (texts, comparison): (Vec<String>, Comparison),
    pooling: Option<Pooling>,
    most: Option<usize>,
    context: &Context<'_>,
) -> Result<Asked, ApiError> {
    check_model(model, context)?;
    if texts.len() > MAX_INPUTS {
        let rest = format_args!("expected at most {MAX_INPUTS} texts in all, found {}", texts.len());
        return Err(refused("documents", rest));
    }
    let pooling = pooling.unwrap_or(context.pooling);
    let request = |mut prompt_token_ids| {
        truncate(&mut prompt_token_ids, most);
        EmbeddingRequest { prompt_token_ids, pooling, ..EmbeddingRequest::default() }
    };
    let tokens = Prompt::Texts(texts.clone()).tokens(context.tokenizer);
    let answer = Answer::new(Kind::Comparison(comparison), context, texts.len(), 1, None)
        .to(Prompts { texts, ..Prompts::default() });
    let sequences = Sequences::Embed(tokens.into_iter().map(request).collect());
    Ok((Work { sequences, form_field: None, is_length_given: true, cuts: false, rename: same }, answer, None))
}

/// The prompt that the body of a chat makes, as text, and the names of its fields that nobody knows.
///
/// # Errors
/// Those of [`prepare`].
pub fn render(body: &Object, context: &Context<'_>) -> Result<(String, BTreeSet<String>), ApiError> {
    let ignored = Endpoint::ChatCompletions.fields().check(body, context.unknown_fields)?;
    let (work, ..) = chat(body, context)?;
    let prompt = work.prompts().next().unwrap_or_default();
    Ok((context.tokenizer.decode(prompt, ControlTokens::Show), ignored))
}

/// Prompts after which the model writes what is missing before `suffix`.
fn infill(prefixes: Prompt, suffix: &str, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
    let encode = |prefix: &String| {
        let prompt = tokenizer.encode_infill(&Infill { prefix, suffix, files: &[] });
        prompt.ok_or_else(|| {
            let rest = "expected none, as the model's vocabulary has no tokens to fill in with, found a text";
            refused("suffix", rest)
        })
    };
    match prefixes {
        Prompt::Text(prefix) => Ok(vec![encode(&prefix)?]),
        Prompt::Texts(prefixes) => prefixes.iter().map(encode).collect(),
        Prompt::Tokens(_) | Prompt::TokenLists(_) => {
            Err(refused("prompt", "expected texts beside suffix, found token ids"))
        }
    }
}

/// The tokens of a prompt.
pub(crate) fn encode_prompt(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut tokens = tokenizer.encode(text, Special::Parse, Bos::Add);
    // A text that a template has made may have its own.
    if tokens.len() > 1 && tokens[0] == tokens[1] && tokenizer.bos() == Some(tokens[0]) {
        tokens.remove(0);
    }
    tokens
}

/// Cuts off the beginning of a prompt that has more than `most` tokens; says whether it has.
fn truncate(prompt: &mut Vec<u32>, most: Option<usize>) -> bool {
    let num_cut = prompt.len().saturating_sub(most.unwrap_or(usize::MAX));
    prompt.drain(..num_cut);
    num_cut > 0
}

/// Refuses a model that is not served.
fn check_model(found: Option<&str>, context: &Context<'_>) -> Result<(), ApiError> {
    match (context.names, found) {
        (ModelNames::OneOf(names), Some(found)) if !context.names.has(found) => {
            Err(ApiError::unknown_model(found, names))
        }
        _ => Ok(()),
    }
}

impl Prompt {
    fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }

    /// The prompts as texts: those that were given, or those of the tokens.
    fn texts(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let decode = |ids: &Vec<u32>| tokenizer.decode(ids, ControlTokens::Show);
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::Texts(texts) => texts.clone(),
            Self::Tokens(ids) => vec![decode(ids)],
            Self::TokenLists(lists) => lists.iter().map(decode).collect(),
        }
    }

    fn tokens(self, tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
        let encode = |text: &String| encode_prompt(text, tokenizer);
        match self {
            Self::Text(text) => vec![encode(&text)],
            Self::Texts(texts) => texts.iter().map(encode).collect(),
            Self::Tokens(ids) => vec![ids],
            Self::TokenLists(lists) => lists,
        }
    }
}

/// The number of choices for each prompt, if there are not too many over all prompts.
fn checked_n(name: &str, n: Option<u32>, num_prompts: usize) -> Result<usize, ApiError> {
    let n = n.unwrap_or(1) as usize;
    if num_prompts == 0 {
        return Err(refused("prompt", "expected at least one, found an empty list"));
    }
    let choices = num_prompts.saturating_mul(n);
    if !(1..=MAX_CHOICES).contains(&choices) {
        let rest = format!("expected 1 to {MAX_CHOICES} choices over all prompts, found {choices}");
        return Err(refused(name, rest));
    }
    Ok(n)
}

/// `n` sequences for each prompt, each with its own seed.
fn work(prompts: &[Vec<u32>], n: usize, params: &SamplingParams, form: Option<&Form>) -> Work {
    let prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
    let request = |(choice, prompt): (u64, &Vec<u32>)| Request {
        prompt_token_ids: prompt.clone(),
        params: SamplingParams { seed: params.seed.wrapping_add(choice), ..params.clone() },
        grammar: form.map(|form| form.grammar.clone()),
        ..Request::default()
    };
    let sequences = Sequences::Generate((0..).zip(prompts).map(request).collect());
    let form_field = form.map(|form| form.field.clone());
    Work { sequences, form_field, is_length_given: true, cuts: false, rename: same }
}

fn sampling_params(common: Common, sampling: Sampling, default_seed: u64) -> SamplingParams {
    let mirostat = Mirostat::default();
    let mirostat = Mirostat {
        tau: sampling.mirostat_tau.unwrap_or(mirostat.tau),
        eta: sampling.mirostat_eta.unwrap_or(mirostat.eta),
    };
    let (xtc, dry) = (Xtc::default(), Dry::default());
    SamplingParams {
        temperature: sampling.temperature.unwrap_or(1.0),
        // vLLM writes "all" as -1 as well as 0.
        top_k: sampling.top_k.map_or(0, |k| usize::try_from(k).unwrap_or(0)),
        top_p: sampling.top_p.unwrap_or(1.0),
        min_p: sampling.min_p.unwrap_or(0.0),
        typical_p: sampling.typical_p.unwrap_or(1.0),
        top_n_sigma: sampling.top_n_sigma.unwrap_or(0.0),
        xtc: Xtc {
            probability: sampling.xtc_probability.unwrap_or(xtc.probability),
            threshold: sampling.xtc_threshold.unwrap_or(xtc.threshold),
        },
        mirostat: sampling.mirostat.then_some(mirostat),
        dry: Dry {
            multiplier: sampling.dry_multiplier.unwrap_or(dry.multiplier),
            base: sampling.dry_base.unwrap_or(dry.base),
            allowed_length: sampling.dry_allowed_length.unwrap_or(dry.allowed_length),
            penalty_last_n: sampling.dry_penalty_last_n,
            sequence_breakers: sampling.dry_sequence_breakers.unwrap_or(dry.sequence_breakers),
        },
        repetition_penalty: sampling.repetition_penalty.unwrap_or(1.0),
        frequency_penalty: sampling.frequency_penalty.unwrap_or(0.0),
        presence_penalty: sampling.presence_penalty.unwrap_or(0.0),
        seed: sampling.seed.unwrap_or(default_seed),
        logit_bias: sampling.logit_bias,
        stop: common.stop,
        stop_token_ids: sampling.stop_token_ids.unwrap_or_default(),
        ignore_eos: sampling.ignore_eos,
        max_tokens: match common.max_tokens {
            MaxTokens::Tokens(tokens) => Some(tokens),
            MaxTokens::Unset | MaxTokens::Context => None,
        },
        min_tokens: sampling.min_tokens.unwrap_or(0),
        logprobs: None,
        prompt_logprobs: None,
        control_tokens: match common.skip_special_tokens {
            Some(false) => ControlTokens::Show,
            _ => ControlTokens::Hide,
        },
    }
}
