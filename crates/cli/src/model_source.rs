//! Models that are not files yet: of the Hugging Face hub (`-hf`) and from URLs.

use anyhow::Result;

use crate::model_args::FileArgs;

/// Whether this is a URL and no path.
fn is_url(text: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|own| own.eq_ignore_ascii_case(scheme)))
}

/// Fetches the model that the options name, if it is no file, and makes them name its file.
///
/// # Errors
/// Says why there is none.
pub fn fetch(args: &mut FileArgs) -> Result<()> {
    let url = args.model.to_str().filter(|text| is_url(text)).map(str::to_owned);
    if args.hf_repo.is_none() && url.is_none() {
        return Ok(());
    }
    args.model = hub_or_url(args, url.as_deref())?;
    Ok(())
}

#[cfg(not(feature = "hub"))]
fn hub_or_url(args: &FileArgs, url: Option<&str>) -> Result<std::path::PathBuf> {
    let found = args.hf_repo.as_deref().or(url).unwrap_or_default();
    anyhow::bail!(
        "{found}: expected a file, since this program was built without downloads\n\
         hint: build it with `cargo install --path crates/cli --features hub`, or download the file and give it to --model"
    )
}

#[cfg(feature = "hub")]
use self::network::hub_or_url;

#[cfg(feature = "hub")]
mod network {
    use std::borrow::Cow;
    use std::env;
    use std::fs;
    use std::io::{IsTerminal, stderr};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Error, Result, anyhow};
    use hub::{Cache, Event, Hub, HubError, HubOptions, ModelId};
    use indicatif::{ProgressBar, ProgressStyle};

    use crate::model_args::FileArgs;
    use crate::models::{cache_folder, hf_home, url_folder};
    use crate::output;

    pub fn hub_or_url(args: &FileArgs, url: Option<&str>) -> Result<PathBuf> {
        let cache = Cache::new(cache_folder()?);
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| HubOptions::ENDPOINT.to_owned());
        let of_link = url.and_then(|url| ModelId::of_link(url, &endpoint));
        let id = match (&args.hf_repo, of_link) {
            (Some(repo), _) => {
                let id: ModelId = repo.parse().context("--hf-repo")?;
                match &args.hf_file {
                    Some(file) => Some(id.with_file(file.parse().context("--hf-file")?)),
                    None => Some(id),
                }
            }
            (None, of_link) => of_link,
        };
        let is_offline = args.offline || is_set("HF_HUB_OFFLINE");
        let found = match (&id, is_offline) {
            (Some(id), true) => cache.find(id),
            (None, true) => hub::find_url(url.unwrap_or_default(), &url_folder()?),
            (id, false) => {
                let mut options = HubOptions::new(cache);
                (options.endpoint, options.token) = (endpoint, token());
                let mut watch = Watch::default();
                let folder = if id.is_none() { url_folder()? } else { PathBuf::new() };
                Hub::new(options).and_then(|hub| match id {
                    Some(id) => hub.model(id, &mut |event| watch.see(&event)),
                    None => hub.file_at(url.unwrap_or_default(), &folder, &mut |event| watch.see(&event)),
                })
            }
        };
        found.map_err(|error| explained(error, is_offline))
    }

    /// The error with what can be done about it.
    fn explained(error: HubError, is_offline: bool) -> Error {
        let has_token = token().is_some();
        let hint = match &error {
            HubError::NotCached { .. } if is_offline => {
                "`rustorch models` lists what is there; without --offline (HF_HUB_OFFLINE) it is fetched"
            }
            HubError::NoSuchFile { .. } => "name one with --hf-repo USER/REPO:QUANT or --hf-file FILE",
            HubError::Refused { status: 401, .. } if has_token => {
                "is the name right? The token (HF_TOKEN) may not see it, or is no longer valid"
            }
            HubError::Refused { status: 401, .. } => {
                "is the name right? A model that is private or gated needs a token of huggingface.co/settings/tokens in HF_TOKEN"
            }
            HubError::Refused { status: 403, .. } => {
                "the model may be gated: ask for access on its page, with the account of the token in HF_TOKEN"
            }
            HubError::Refused { status: 404, .. } => "is the name right?",
            HubError::Refused { status: 429, .. } => {
                "wait, or set HF_TOKEN: the hub allows its users more requests"
            }
            HubError::Unreachable { .. } => "what has arrived is kept, and the same command goes on with it",
            HubError::Io { .. } => {
                "the cache can lie elsewhere: HF_HOME; what has arrived is kept, and the same command goes on with it"
            }
            _ => return error.into(),
        };
        anyhow!("{error}\nhint: {hint}")
    }

    fn variable(name: &str) -> Option<String> {
        env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// As the hub's own library reads a flag.
    fn is_set(name: &str) -> bool {
        variable(name)
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()))
    }

    /// The user's token: of the environment, or that which the hub's own program keeps.
    fn token() -> Option<String> {
        let of_file = || {
            let path =
                variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home()?.join("token")));
            fs::read_to_string(path?).ok()
        };
        let token = variable("HF_TOKEN").or_else(of_file)?;
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    }

    /// Time between two lines of progress where there is no terminal.
    const LINE_EVERY: Duration = Duration::from_secs(10);

    /// Tells how far downloads are: a bar on a terminal, elsewhere a line now and then.
    #[derive(Default)]
    struct Watch {
        bar: Option<ProgressBar>,
        file: String,
        size: u64,
        line: Option<Instant>,
    }

    impl Watch {
        fn see(&mut self, event: &Event<'_>) {
            match event {
                Event::Begin { file, size, done } => self.begin(file, *size, *done),
                Event::Progress(done) => self.progress(*done),
                Event::End => {
                    if let Some(bar) = self.bar.take() {
                        bar.finish_and_clear();
                    }
                    self.say(&format!("fetched {}, {}", self.file, output::bytes(self.size)));
                }
                Event::Waiting { file } => {
                    self.say(&format!("waiting for another process that fetches {}", line(file)));
                }
                Event::Retry { reason } => self.say(&format!("warning: {}; going on", line(reason))),
                Event::Unreachable { reason } => {
                    self.say(&format!("warning: {}; taking the model from the cache", line(reason)));
                }
                _ => {}
            }
        }

        fn begin(&mut self, file: &str, size: u64, done: u64) {
            (self.file, self.size) = (line(file).into_owned(), size);
            let from =
                if done > 0 { format!(", {} of it there", output::bytes(done)) } else { String::new() };
            self.say(&format!("fetching {}, {}{from}", self.file, output::bytes(size)));
            self.line = Some(Instant::now());
            if stderr().is_terminal() && !output::is_quiet() {
                let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
                let style = ProgressStyle::with_template(style).expect("the template is valid");
                self.bar = Some(ProgressBar::new(size).with_style(style).with_position(done));
            }
        }

        fn progress(&mut self, done: u64) {
            if let Some(bar) = &self.bar {
                return bar.set_position(done);
            }
            if self.line.is_some_and(|last| last.elapsed() >= LINE_EVERY) {
                self.line = Some(Instant::now());
                let (done, size) = (output::bytes(done), output::bytes(self.size));
                self.say(&format!("fetching {}: {done} of {size}", self.file));
            }
        }

        fn say(&self, text: &str) {
            match &self.bar {
                Some(bar) => bar.suspend(|| output::note(text)),
                None => output::note(text),
            }
        }
    }

    fn line(text: &str) -> Cow<'_, str> {
        output::visible_line(text)
    }
}
