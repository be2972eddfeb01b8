//! `rustorch generate`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustorch_llama::{
    Bos, ChatMessage, Event, GenerationPrompt, LlamaConfig, Request, SamplingParams, Special, Tokenizer,
    Usage,
};

use crate::model_args::{ModelArgs, Purpose, Started, parse_count};
use crate::output::Out;
use crate::sampling_args::SamplingArgs;
use crate::structure::StructureArgs;
use crate::{output, text_input};

/// Generate text for one or more prompts, all in one batch
///
/// Each prompt is printed with its continuation as it streams; of several, the first unfinished one streams while the
/// others are held until their turn. The first prompt is sampled with --seed, the next with the number after it, and so on.
#[derive(clap::Args)]
pub struct Args {
    /// The prompt, or - for standard input; repeat for more
    #[arg(short, long, value_name = "TEXT", required_unless_present = "file", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// File with a prompt, whose last line break is left out; repeat for more, which follow those of --prompt
    #[arg(short, long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// Most tokens to generate for each prompt [default: 128, or what fits the context]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = parse_count)]
    max_tokens: Option<NonZeroUsize>,
    /// Take each prompt for a user's message and apply the model's chat template
    #[arg(long)]
    chat: bool,
    /// System message for --chat
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    structure: StructureArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Tokens generated for a prompt by default, if they fit the context.
const DEFAULT_MAX_TOKENS: usize = 128;

/// One prompt's output so far.
struct Lane {
    heading: String,
    text: String,
    ended: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let prompts = prompts(args)?;
    // One batch for all prompts, however many.
    let num_prompts = NonZeroUsize::new(prompts.len()).unwrap_or(NonZeroUsize::MIN);
    let given = args.model.batch_size.or(NonZeroUsize::new(LlamaConfig::DEFAULT_BATCH_SIZE));
    let batch_size = given.max(Some(num_prompts));
    let model = ModelArgs { batch_size, ..args.model.clone() };
    let started = model.start_engine(Purpose::Throughput, None)?;
    started.note(&model);
    let Started { engine, tokenizer, .. } = started;
    if !args.chat && !args.model.file.is_demo() && tokenizer.chat_template().is_ok() {
        output::note(
            "hint: the model has a chat template: --chat makes a prompt the message that it answers",
        );
    }
    // Before the clock starts: it may take as long as many tokens.
    let grammar = args.structure.compile(&tokenizer)?;
    let (sender, events) = mpsc::channel();
    let started = Instant::now();
    let longest = engine.max_seq_tokens();
    for (index, prompt) in prompts.iter().enumerate() {
        request(args, index, prompt, &tokenizer, longest)
            .map(|request| Request { grammar: grammar.clone(), ..request })
            .and_then(|request| Ok(engine.submit_to(request, index as u64, &sender)?))
            .with_context(|| prompt_name(index))?;
    }
    drop(sender);

    let mut lanes = lanes(&prompts, args.chat);
    let mut usage = Usage::default();
    let mut current = 0;
    let mut out = Out::new();
    out.write(&lanes[0].heading).context(output::STDOUT)?;
    for (index, event) in events {
        let lane = &mut lanes[index as usize];
        match event {
            Event::Token(token) => lane.text.push_str(&token.text),
            Event::Finished { usage: used, .. } => {
                lane.ended = true;
                usage.prompt_tokens += used.prompt_tokens;
                usage.completion_tokens += used.completion_tokens;
            }
            Event::Prompt(_) | Event::Embedding { .. } => {}
            Event::Error(error) => return Err(anyhow!(error).context(prompt_name(index as usize))),
        }
        print_ready(&mut lanes, &mut current, &mut out).context(output::STDOUT)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    output::note(&format!(
        "\n{} prompt tokens, {} generated in {seconds:.2} s: {:.1} tokens/s",
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.completion_tokens as f64 / seconds
    ));
    Ok(())
}

fn prompt_name(index: usize) -> String {
    format!("prompt {}", index + 1)
}

/// Those of the arguments, then those of files.
fn prompts(args: &Args) -> Result<Vec<String>> {
    let given = args.prompt.iter().map(|prompt| match prompt.as_str() {
        "-" => text_input::read_stdin().map(without_last_break),
        prompt => Ok(prompt.to_owned()),
    });
    let of_files = args.file.iter().map(|path| text_input::read_file(path).map(without_last_break));
    given.chain(of_files).collect()
}

/// A text without the line break that editors and `echo` end it with.
fn without_last_break(mut text: String) -> String {
    let kept = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    text.truncate(kept.len());
    text
}

fn lanes(prompts: &[String], is_chat: bool) -> Vec<Lane> {
    let of = prompts.len();
    let lane = |(index, prompt): (usize, &String)| {
        let number = if of > 1 { format!("--- {}/{of}\n", index + 1) } else { String::new() };
        // A chat's prompt is no beginning of its answer.
        let prompt = if is_chat { "" } else { prompt };
        Lane { heading: number + prompt, text: String::new(), ended: false }
    };
    prompts.iter().enumerate().map(lane).collect()
}

/// Prints what the current lane has, and goes on to the next whenever it has ended.
fn print_ready(lanes: &mut [Lane], current: &mut usize, out: &mut Out) -> std::io::Result<()> {
    while let Some(lane) = lanes.get_mut(*current) {
        out.write(&std::mem::take(&mut lane.text))?;
        if !lane.ended {
            break;
        }
        out.write("\n")?;
        *current += 1;
        if let Some(next) = lanes.get(*current) {
            out.write("\n")?;
            out.write(&next.heading)?;
        }
    }
    out.flush()
}

fn request(
    args: &Args,
    index: usize,
    prompt: &str,
    tokenizer: &Tokenizer,
    longest: usize,
) -> Result<Request> {
    let prompt_token_ids = prompt_tokens(args, tokenizer, prompt)?;
    let left = longest.saturating_sub(prompt_token_ids.len());
    let max_tokens = args.max_tokens.map_or(DEFAULT_MAX_TOKENS.min(left.max(1)), NonZeroUsize::get);
    let params = sampling_params(args, index, max_tokens);
    Ok(Request { prompt_token_ids, params, ..Request::default() })
}

fn prompt_tokens(args: &Args, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>> {
    if !args.chat {
        return Ok(tokenizer.encode(prompt, Special::Parse, Bos::Add));
    }
    let system = args.system.iter().map(|text| ChatMessage::new("system", text));
    let messages: Vec<_> = system.chain([ChatMessage::new("user", prompt)]).collect();
    Ok(tokenizer.apply_chat_template(&messages, GenerationPrompt::Add)?)
}

/// Each prompt has a seed of its own, or equal prompts would get equal answers.
fn sampling_params(args: &Args, index: usize, max_tokens: usize) -> SamplingParams {
    SamplingParams {
        seed: args.model.run.seed.value.wrapping_add(index as u64),
        max_tokens: Some(max_tokens),
        ..args.sampling.params()
    }
}
