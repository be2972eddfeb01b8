//! `rustorch generate`

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use rustorch_llama::{
    Bos, ChatMessage, Event, GenerationPrompt, Request, SamplingParams, Special, Tokenizer, Usage,
};

use crate::model_args::ModelArgs;
use crate::output;

/// Generate text for one or more prompts, all in one batch
///
/// Each prompt is printed with its continuation as it streams; of several, the first unfinished one streams while the
/// others are held until their turn.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompt; repeat for more
    #[arg(short, long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,
    /// Most tokens to generate for each prompt
    #[arg(short = 'n', long, value_name = "N", default_value = "128")]
    max_tokens: NonZeroUsize,
    /// Take each prompt for a user's message and apply the model's chat template
    #[arg(long)]
    chat: bool,
    /// System message for --chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// How tokens are chosen. Names and defaults are llama.cpp's.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling options")]
struct SamplingArgs {
    /// 0 takes the most likely token each time
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f32,
    /// Sample among the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Sample among the most likely tokens that make up this probability
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Sample among tokens at least this likely relative to the most likely
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Divide the logits of tokens that occurred already; 1 for none
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Subtract this from a token's logit for each time it was generated
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Subtract this from a token's logit once it was generated
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f32,
    /// End at this text, which is not printed; repeat for more
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not end at the model's end-of-text token
    #[arg(long)]
    ignore_eos: bool,
}

/// One prompt's output so far.
struct Lane {
    heading: String,
    text: String,
    ended: bool,
}

pub fn run(args: Args) -> Result<()> {
    let (engine, tokenizer, _) = args.model.start_engine()?;
    let (sender, events) = mpsc::channel();
    let started = Instant::now();
    for (index, prompt) in args.prompt.iter().enumerate() {
        let request = Request {
            prompt_token_ids: prompt_tokens(&args, &tokenizer, prompt)?,
            params: sampling_params(&args, index),
        };
        engine.submit_to(request, index as u64, &sender)?;
    }
    drop(sender);

    let several = args.prompt.len() > 1;
    let mut lanes: Vec<Lane> = args
        .prompt
        .iter()
        .enumerate()
        .map(|(index, prompt)| Lane {
            heading: heading(
                several.then_some((index + 1, args.prompt.len())),
                (!args.chat).then_some(prompt),
            ),
            text: String::new(),
            ended: false,
        })
        .collect();
    let mut usage = Usage::default();
    let mut current = 0;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", lanes[0].heading)?;
    for (index, event) in events {
        let lane = &mut lanes[index as usize];
        match event {
            Event::Token(token) => lane.text.push_str(&token.text),
            Event::Finished { usage: used, .. } => {
                lane.ended = true;
                usage.prompt_tokens += used.prompt_tokens;
                usage.completion_tokens += used.completion_tokens;
            }
            Event::Error(error) => return Err(anyhow!(error).context(format!("prompt {}", index + 1))),
        }
        print_ready(&mut lanes, &mut current, &mut out)?;
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

/// Prints what the current lane has, and goes on to the next whenever it has ended.
fn print_ready(lanes: &mut [Lane], current: &mut usize, out: &mut impl Write) -> Result<()> {
    while let Some(lane) = lanes.get_mut(*current) {
        if !lane.text.is_empty() {
            write!(out, "{}", std::mem::take(&mut lane.text))?;
            out.flush()?;
        }
        if !lane.ended {
            break;
        }
        writeln!(out)?;
        *current += 1;
        if let Some(next) = lanes.get(*current) {
            write!(out, "\n{}", next.heading)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn heading(number: Option<(usize, usize)>, prompt: Option<&String>) -> String {
    let number = number.map_or(String::new(), |(index, of)| format!("--- {index}/{of}\n"));
    number + prompt.map_or("", String::as_str)
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
fn sampling_params(args: &Args, index: usize) -> SamplingParams {
    let sampling = &args.sampling;
    SamplingParams {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repeat_penalty,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: args.model.seed.wrapping_add(index as u64),
        stop: sampling.stop.clone(),
        ignore_eos: sampling.ignore_eos,
        max_tokens: Some(args.max_tokens.get()),
        ..SamplingParams::default()
    }
}
