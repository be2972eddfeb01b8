//! `rustorch chat`: a conversation on a terminal, or with whatever writes its lines to a pipe.

mod conversation;
mod editor;
mod history;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustorch_llama::{
    EngineError, EngineHandle, Event, EventSink, FinishReason, GenerationPrompt, Request, SamplingParams,
    Tokenizer, Usage,
};
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use self::conversation::Conversation;
use self::editor::{Editor, Input, Keeping};
use crate::model_args::{ModelArgs, Purpose, Started, TemplateArgs, parse_count};
use crate::output::{self, Out};
use crate::sampling_args::SamplingArgs;

/// Chat with a model
///
/// A line is a message; one that ends with \ goes on in the next, and lines between """ and """ are one message. Lines
/// that begin with / are commands: /help lists them. Ctrl-C stops an answer, Ctrl-D ends the program. Without a terminal,
/// lines come from standard input and answers go to standard output.
#[derive(clap::Args)]
pub struct Args {
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Most tokens of an answer [default: what the context has room for]
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = parse_count)]
    max_tokens: Option<NonZeroUsize>,
    /// File that keeps messages for the next conversation [default: rustorch/chat_history in the user's state folder]
    #[arg(long, value_name = "FILE")]
    history_file: Option<PathBuf>,
    /// Keep no messages when the conversation ends
    #[arg(long, conflicts_with = "history_file")]
    no_history: bool,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

impl Args {
    fn keeping(&self) -> Keeping {
        match &self.history_file {
            _ if self.no_history => Keeping::Nowhere,
            Some(path) => Keeping::In(path.clone()),
            None => Keeping::InUsers,
        }
    }
}

const HELP: &str = "\
/system TEXT  set the system message; without a text, remove it
/clear        forget the conversation, but not the system message
/undo         take back the last message and its answer
/save FILE    write the conversation as JSON, as the API takes messages
/load FILE    continue a conversation that was saved
/stats        tokens and times of the last answer, and room in the context
/help         this list
/exit         end (or Ctrl-D)";

pub fn run(args: &Args) -> Result<()> {
    // Before the model is loaded, which may take minutes.
    let mut editor = Editor::open(&args.keeping())?;
    // One conversation, unless somebody wants more memory for the cache.
    let batch_size = args.model.batch_size.or(NonZeroUsize::new(1));
    let model = ModelArgs { batch_size, ..args.model.clone() };
    let started = model.start_engine(Purpose::Answers { itl_target: None }, Some(&args.template))?;
    started.note(&model);
    let Started { engine, tokenizer, .. } = started;
    tokenizer
        .chat_template()
        .context("chatting needs a chat template\nhint: --chat-template FILE gives one")?;
    let mut session = Session {
        args,
        engine,
        tokenizer,
        interrupt: Interrupt::watch().context("signals")?,
        conversation: Conversation::new(args.system.clone()),
        last: None,
        num_answers: 0,
    };
    if editor.is_terminal() {
        output::note("/help lists commands; Ctrl-C stops an answer, Ctrl-D ends.");
    }
    loop {
        match editor.read().context("reading a message")? {
            Input::Message(text) => match text.strip_prefix('/') {
                Some("exit" | "quit" | "bye") => return Ok(()),
                Some(command) => session.obey(command)?,
                None => session.answer(text)?,
            },
            Input::Interrupted => output::note("Ctrl-D or /exit ends"),
            Input::End => return Ok(()),
        }
    }
}

struct Session<'a> {
    args: &'a Args,
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    interrupt: Interrupt,
    conversation: Conversation,
    last: Option<Figures>,
    /// Each answer has a seed of its own.
    num_answers: u64,
}

/// What an answer took.
struct Figures {
    usage: Usage,
    /// Time to the first token.
    first: Duration,
    total: Duration,
}

impl Session<'_> {
    fn obey(&mut self, command: &str) -> Result<()> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let done = match (name, rest) {
            ("help" | "?", _) => Ok(HELP.to_owned()),
            ("system", text) => {
                self.conversation.system = (!text.is_empty()).then(|| text.to_owned());
                Ok(if text.is_empty() { "no system message" } else { "the system message is set" }.to_owned())
            }
            ("clear", _) => {
                self.conversation.turns.clear();
                Ok("the conversation is forgotten".to_owned())
            }
            ("undo", _) => Ok(match self.conversation.undo() {
                true => "the last message is taken back".to_owned(),
                false => "there is no message".to_owned(),
            }),
            ("stats", _) => Ok(self.stats()),
            ("save" | "load", "") => Err(anyhow::anyhow!("/{name}: expected a file")),
            ("save", path) => self.conversation.save(Path::new(path)).map(|()| format!("saved to {path}")),
            ("load", path) => Conversation::load(Path::new(path)).map(|loaded| {
                self.conversation = loaded;
                format!("{} messages of {path}", self.conversation.turns.len())
            }),
            _ => Err(anyhow::anyhow!("/{name} is no command; /help lists them")),
        };
        match done {
            Ok(text) => output::note(&text),
            Err(error) => output::error(&error),
        }
        Ok(())
    }

    fn stats(&self) -> String {
        let longest = output::grouped(self.engine.max_seq_tokens() as u64);
        let Some(Figures { usage, first, total }) = &self.last else {
            return format!("no answer yet; the context holds {longest} tokens");
        };
        let used = (usage.prompt_tokens + usage.completion_tokens) as u64;
        let decoding = (*total - *first).as_secs_f64().max(1e-9);
        format!(
            "{} prompt tokens ({} of them cached), first token after {:.2} s, {} tokens in {:.2} s ({:.1} tokens/s); {} of {longest} \
             tokens of the context are used",
            usage.prompt_tokens,
            usage.cached_tokens,
            first.as_secs_f64(),
            usage.completion_tokens,
            total.as_secs_f64(),
            usage.completion_tokens.saturating_sub(1) as f64 / decoding,
            output::grouped(used),
        )
    }

    /// Says what the model answers. What it cannot answer is taken back and told.
    fn answer(&mut self, text: String) -> Result<()> {
        self.conversation.push("user", text);
        let request = match self.request() {
            Ok(request) => request,
            Err(error) => {
                self.conversation.undo();
                output::error(&error);
                return Ok(());
            }
        };
        let (sender, events) = mpsc::channel();
        let answering = self.interrupt.answering();
        let sink = Sink { events: sender, is_stopped: Arc::clone(&self.interrupt.is_stopped) };
        if let Err(error) = self.engine.submit_with(request, sink) {
            self.conversation.undo();
            output::error(&error.into());
            return Ok(());
        }
        let began = Instant::now();
        let (mut first, mut said, mut ending, mut failed) = (None, String::new(), None, None);
        let mut out = Out::new();
        for event in events {
            match event {
                Event::Token(token) => {
                    first.get_or_insert_with(|| began.elapsed());
                    out.write(&token.text).context(output::STDOUT)?;
                    out.flush().context(output::STDOUT)?;
                    said.push_str(&token.text);
                }
                Event::Finished { reason, usage, .. } => ending = Some((reason, usage)),
                Event::Prompt(_) | Event::Embedding { .. } => {}
                Event::Error(error) => failed = Some(error),
            }
        }
        drop(answering);
        out.write("\n").context(output::STDOUT)?;
        out.flush().context(output::STDOUT)?;
        drop(out);
        match ending {
            Some((reason, usage)) => {
                let total = began.elapsed();
                self.last = Some(Figures { usage, first: first.unwrap_or(total), total });
                if reason == FinishReason::Length {
                    output::note("the answer reached its most tokens");
                }
            }
            None if self.interrupt.is_stopped.load(Ordering::Relaxed) => output::note("stopped"),
            None => output::error(&failed.unwrap_or(EngineError::Stopped).into()),
        }
        self.num_answers += 1;
        self.conversation.push("assistant", said);
        Ok(())
    }

    fn request(&self) -> Result<Request> {
        let messages = self.conversation.messages();
        let prompt_token_ids = self.tokenizer.apply_chat_template(&messages, GenerationPrompt::Add)?;
        let (used, longest) = (prompt_token_ids.len(), self.engine.max_seq_tokens());
        anyhow::ensure!(
            used < longest,
            "the conversation has {used} tokens, the context holds {longest}\nhint: /undo or /clear makes room, --ctx gives more"
        );
        let room = longest - used;
        let params = SamplingParams {
            seed: self.args.model.run.seed.value.wrapping_add(self.num_answers),
            max_tokens: Some(self.args.max_tokens.map_or(room, |most| most.get().min(room))),
            ..self.args.sampling.params()
        };
        Ok(Request { prompt_token_ids, params, ..Request::default() })
    }
}

/// Passes events on until the answer is stopped.
struct Sink {
    events: Sender<Event>,
    is_stopped: Arc<AtomicBool>,
}

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        // Nobody listens once writing the answer has failed.
        let _ = self.events.send(event);
    }

    fn is_closed(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// SIGINT: stops an answer; between answers it ends the program, as usual.
struct Interrupt {
    is_stopped: Arc<AtomicBool>,
    is_idle: Arc<AtomicBool>,
}

impl Interrupt {
    fn watch() -> std::io::Result<Self> {
        let interrupt = Self { is_stopped: Arc::default(), is_idle: Arc::new(AtomicBool::new(true)) };
        flag::register_conditional_default(SIGINT, Arc::clone(&interrupt.is_idle))?;
        flag::register(SIGINT, Arc::clone(&interrupt.is_stopped))?;
        Ok(interrupt)
    }

    /// An answer begins, which ends when the result is dropped.
    fn answering(&self) -> Answering {
        self.is_stopped.store(false, Ordering::Relaxed);
        self.is_idle.store(false, Ordering::Relaxed);
        Answering(Arc::clone(&self.is_idle))
    }
}

struct Answering(Arc<AtomicBool>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
