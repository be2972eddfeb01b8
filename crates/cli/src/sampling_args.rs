//! The options of how tokens are chosen.

use clap::builder::NonEmptyStringValueParser;
use rustorch_llama::{Dry, Mirostat, SamplingParams, Xtc};

use crate::model_args::parse_whole;

/// How tokens are chosen. Names and defaults are llama.cpp's.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling options", allow_negative_numbers = true)]
pub struct SamplingArgs {
    /// 0 takes the most likely token each time
    #[arg(long, visible_alias = "temp", value_name = "X", default_value_t = 0.8)]
    #[arg(value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    temperature: f32,
    /// Sample among the K most likely tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = parse_whole::<usize>)]
    top_k: usize,
    /// Sample among the most likely tokens that make up this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = number(PROBABILITY, is_probability))]
    top_p: f32,
    /// Sample among tokens at least this likely relative to the most likely
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = number(PROBABILITY, is_probability))]
    min_p: f32,
    /// Sample among the tokens about as likely as is to be expected (locally typical), which make up this probability
    #[arg(long = "typical", value_name = "P", default_value_t = 1.0)]
    #[arg(value_parser = number(PROBABILITY, is_probability))]
    typical_p: f32,
    /// Sample among tokens whose logits are at most N standard deviations below the highest; 0 or less for all
    #[arg(long = "top-nsigma", value_name = "N", default_value_t = -1.0, value_parser = number("a number", |_| true))]
    top_n_sigma: f32,
    /// How often the most likely tokens are excluded (XTC)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number(PROBABILITY, is_probability))]
    xtc_probability: f32,
    /// XTC excludes the tokens at least this likely but the least likely of them
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = number(PROBABILITY, is_probability))]
    xtc_threshold: f32,
    /// 2 keeps the surprise of the text constant (Mirostat), instead of the rules above; 0 does not
    #[arg(long, value_name = "0|2", default_value = "0", value_parser = mirostat)]
    #[arg(action = clap::ArgAction::Set)]
    mirostat: bool,
    /// The surprise that Mirostat keeps, in bits
    #[arg(long = "mirostat-ent", value_name = "TAU", default_value_t = 5.0)]
    #[arg(value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    mirostat_tau: f32,
    /// How fast Mirostat follows
    #[arg(long = "mirostat-lr", value_name = "ETA", default_value_t = 0.1)]
    #[arg(value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    mirostat_eta: f32,
    /// Penalise tokens that would continue a repetition of n tokens, by this times base^(n - allowed length) (DRY); 0 for none
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    #[arg(value_parser = number("a number, 0 or more", |x| x >= 0.0))]
    dry_multiplier: f32,
    /// The base of DRY
    #[arg(long, value_name = "X", default_value_t = 1.75, value_parser = number("a number, 1 or more", |x| x >= 1.0))]
    dry_base: f32,
    /// The shortest repetition that DRY penalises
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = parse_whole::<usize>)]
    dry_allowed_length: usize,
    /// Tokens in which DRY looks for repetitions; -1 for all
    #[arg(long, value_name = "N", default_value = "-1", value_parser = last_n)]
    dry_penalty_last_n: LastN,
    /// A string that no repetition reaches over for DRY; repeat for more, `none` for none [default: newline, `:`, `"`, `*`]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    dry_sequence_breaker: Vec<String>,
    /// Divide the logits of tokens that occurred already; 1 for none
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    #[arg(value_parser = number("a number above 0", |x| x > 0.0))]
    repeat_penalty: f32,
    /// Subtract this from a token's logit for each time it was generated
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number("a number", |_| true))]
    frequency_penalty: f32,
    /// Subtract this from a token's logit once it was generated
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number("a number", |_| true))]
    presence_penalty: f32,
    /// End at this text, which is not printed; repeat for more
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Do not end at the model's end-of-text token
    #[arg(long)]
    ignore_eos: bool,
}

pub const PROBABILITY: &str = "a number from 0 to 1";

pub fn is_probability(x: f32) -> bool {
    (0.0..=1.0).contains(&x)
}

/// A parser for finite numbers that `permits` lets pass.
pub fn number(
    expected: &'static str,
    permits: fn(f32) -> bool,
) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|x: &f32| x.is_finite() && permits(*x));
        number.ok_or_else(|| format!("expected {expected}"))
    }
}

/// A number of tokens, or all.
#[derive(Clone, Copy)]
struct LastN(Option<usize>);

fn last_n(text: &str) -> Result<LastN, String> {
    match text {
        "-1" => Ok(LastN(None)),
        _ => text
            .parse()
            .map(|n| LastN(Some(n)))
            .map_err(|_| "expected a whole number, or -1 for all".to_owned()),
    }
}

fn mirostat(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "2" => Ok(true),
        _ => Err("expected 0 or 2 (1 is not supported)".to_owned()),
    }
}

impl SamplingArgs {
    /// The parameters of a request; its seed and length are the caller's.
    pub fn params(&self) -> SamplingParams {
        let mirostat = Mirostat { tau: self.mirostat_tau, eta: self.mirostat_eta };
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc: Xtc { probability: self.xtc_probability, threshold: self.xtc_threshold },
            mirostat: self.mirostat.then_some(mirostat),
            dry: Dry {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed_length: self.dry_allowed_length,
                penalty_last_n: self.dry_penalty_last_n.0,
                sequence_breakers: self.sequence_breakers(),
            },
            repetition_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..SamplingParams::default()
        }
    }

    fn sequence_breakers(&self) -> Vec<String> {
        match self.dry_sequence_breaker.as_slice() {
            [] => Dry::default().sequence_breakers,
            // As in llama.cpp, it drops the default ones too.
            given => given.iter().filter(|breaker| *breaker != "none").cloned().collect(),
        }
    }
}
