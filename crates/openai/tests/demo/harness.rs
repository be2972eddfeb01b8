//! The demo model, and bodies against it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};

use openai::{
    Answer, ApiError, Context, Endpoint, Identity, ModelNames, Prepared, UnknownFields, parse_object, prepare,
};
use rustorch_llama::{EngineHandle, Event, EventSink, Grammars, LlamaConfig, Tokenizer, Weights, demo};
use serde_json::{Value, json};

pub struct Sink(pub usize, pub Sender<(usize, Event)>);

impl EventSink for Sink {
    fn send(&mut self, event: Event) {
        let _ = self.1.send((self.0, event));
    }

    fn is_closed(&self) -> bool {
        false
    }
}

pub const IDENTITY: Identity<'_> = Identity { suffix: "1", created: 5 };

pub struct Demo {
    pub tokenizer: Arc<Tokenizer>,
    pub grammars: Grammars,
    pub engine: EngineHandle,
    pub hidden_size: usize,
}

pub fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let gguf = demo::gguf();
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
        let config = LlamaConfig::from_gguf(&gguf).unwrap().with_max_seq_len(768).with_batch_size(4);
        let weights = Weights::load(&gguf, config, Default::default()).unwrap();
        let engine = weights.start_engine(Some(Arc::clone(&tokenizer)), Default::default()).unwrap();
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        Demo { tokenizer, grammars, engine, hidden_size: weights.config().hidden_size() }
    })
}

/// Biases against tokens of white space alone, which the demo model would put into every gap of JSON.
pub fn no_blanks() -> Value {
    let tokenizer = &demo().tokenizer;
    let is_blank = |id: &u32| tokenizer.token_bytes(*id).iter().all(u8::is_ascii_whitespace);
    let blanks = (0..tokenizer.vocab_size() as u32).filter(is_blank);
    blanks.map(|id| (id.to_string(), json!(-100))).collect::<serde_json::Map<_, _>>().into()
}

pub fn read(endpoint: Endpoint, body: &Value, names: ModelNames<'_>) -> Result<Prepared, ApiError> {
    let body = parse_object(body.to_string().as_bytes())?;
    prepare(
        endpoint,
        &body,
        &Context {
            tokenizer: &demo().tokenizer,
            grammars: &demo().grammars,
            model: "demo",
            names,
            hidden_size: demo().hidden_size,
            pooling: Default::default(),
            fingerprint: Some("fp_1"),
            seed: 7,
            unknown_fields: UnknownFields::Report,
        },
    )
}

/// Submits a body; what it waits for.
pub fn submit(endpoint: Endpoint, body: &Value) -> (Answer, Receiver<(usize, Event)>) {
    let Prepared { work, answer, .. } = read(endpoint, body, ModelNames::Any).unwrap();
    let (events, received) = mpsc::channel();
    work.submit(&demo().engine, |choice| Sink(choice, events.clone())).unwrap();
    (answer, received)
}

pub fn whole(endpoint: Endpoint, body: &Value) -> Value {
    let (mut answer, events) = submit(endpoint, body);
    while !answer.is_complete() {
        let (choice, event) = events.recv().unwrap();
        answer.add(choice, event).unwrap();
    }
    json!(answer.body(&IDENTITY, &demo().tokenizer))
}

/// A value as one that was read from text has it: the last bits of its numbers differ.
pub fn reread(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap()
}

/// Every chunk of the streamed answer.
pub fn streamed(endpoint: Endpoint, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let options = read(endpoint, &body, ModelNames::Any).unwrap().stream.unwrap();
    assert!(options.include_usage);
    let (answer, events) = submit(endpoint, &body);
    let mut chunks = answer.into_chunks(&IDENTITY, options);
    let mut sent: Vec<Value> = chunks.opening().iter().map(|chunk| json!(chunk)).collect();
    while !chunks.is_complete() {
        let (choice, event) = events.recv().unwrap();
        sent.extend(chunks.add(choice, event, &demo().tokenizer).unwrap().map(|chunk| json!(chunk)));
    }
    sent.extend(chunks.closing().map(|chunk| json!(chunk)));
    sent
}

/// Puts chunks together the way a client does.
pub fn join(chunks: &[Value], whole: &Value) -> Value {
    let mut joined = whole.clone();
    for choice in joined["choices"].as_array_mut().unwrap() {
        let of_choice = |chunk: &&Value| chunk["choices"][0]["index"] == choice["index"];
        let parts: Vec<&Value> = chunks.iter().filter(of_choice).map(|chunk| &chunk["choices"][0]).collect();
        let text = |part: &&Value| {
            let text = part.get("text").or(part["delta"].get("content"));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let text: String = parts.iter().map(text).collect();
        let lists = |path: &str| -> Vec<Value> {
            parts.iter().filter_map(|part| part.pointer(path)?.as_array()).flatten().cloned().collect()
        };
        if let Some(message) = choice.get_mut("message") {
            message["content"] = json!(text);
            assert_eq!(parts[0]["delta"], json!({"role": "assistant", "content": ""}));
        } else {
            choice["text"] = json!(text);
        }
        if let Some(logprobs) = choice["logprobs"].as_object_mut() {
            for (name, list) in logprobs.iter_mut().filter(|(_, list)| list.is_array()) {
                *list = json!(lists(&format!("/logprobs/{name}")));
            }
        }
        let ends: Vec<&Value> = parts.iter().map(|part| &part["finish_reason"]).collect();
        let (last, before) = ends.split_last().unwrap();
        assert!(before.iter().all(|end| end.is_null()), "{ends:?}");
        choice["finish_reason"] = (*last).clone();
    }
    joined["usage"] = chunks.last().unwrap()["usage"].clone();
    joined
}

/// What a body is answered as a stream, and the type of its content.
pub fn streamed_text(endpoint: Endpoint, body: &Value) -> (String, &'static str) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let options = read(endpoint, &body, ModelNames::Any).unwrap().stream.unwrap();
    let (answer, received) = submit(endpoint, &body);
    let mut stream = answer.into_stream(&IDENTITY, options);
    let content_type = stream.content_type();
    assert_eq!(stream.comment().is_none(), content_type == LINES, "lines of JSON have no comments");
    let mut out = Vec::new();
    stream.open(&mut out);
    while !stream.is_complete() {
        let (choice, event) = received.recv().unwrap();
        stream.add(choice, event, &demo().tokenizer, &mut out).unwrap();
    }
    (String::from_utf8(out).unwrap(), content_type)
}

/// The type of a stream of lines of JSON.
pub const LINES: &str = "application/x-ndjson";
