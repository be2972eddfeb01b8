//! Connections: accepting, serving and, at the end, draining them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::access::{self, Access, Line};
use crate::app::{App, AppState};
use crate::config::{ServedModel, ServerConfig};
use crate::connections::{Connection, Connections, Shed};
use crate::drain::Drain;
use crate::proxies::Peer;
use crate::router::{router, state_router};

/// Threads for connections. They only pass on the engine's output; the processor's cores are for the engine.
const WORKERS: usize = 2;
/// Threads for tokenising and for files.
const MAX_BLOCKING: usize = 8;
/// How long a connection may take to send a request's head, or be idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may read nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes that a connection buffers before it waits for its client to read.
const WRITE_BUFFER: usize = 64 << 10;
/// How long connections may take to close once their answers are written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once of the listener for the server's state.
const STATE_CONNECTIONS: usize = 64;
/// How long accepting pauses after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that is ready to [`run`](Self::run).
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    /// For the server's state alone.
    state_listener: Option<TcpListener>,
    app: AppState,
    stop: Stop,
    signals: Signals,
}

/// Shuts a server down; clones belong to the same server.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

/// Whether SIGTERM and SIGINT shut a server down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// The first starts draining; the second ends the process at once.
    Heed,
    /// They keep the effect that they had.
    Ignore,
}

impl Stop {
    /// Starts draining: running requests are finished, new ones are answered 503, then [`Server::run`] returns.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// A server that will listen at `listener`. Connections that come before it [runs](Self::run) wait in the system's backlog.
    ///
    /// # Errors
    /// When the listener or the data folder cannot be used.
    pub fn new(
        listener: TcpListener,
        model: ServedModel,
        config: ServerConfig,
        signals: Signals,
    ) -> io::Result<Self> {
        assert!(!model.names.is_empty(), "the model has no name");
        listener.set_nonblocking(true)?;
        let stop = Stop(watch::Sender::new(false));
        let app = App::new(model, config, Drain::new(stop.0.clone()))?;
        Ok(Self { listener, state_listener: None, app: Arc::new(app), stop, signals })
    }

    /// Also tells its state (`/health`, `/ping`, `/metrics`) at another listener, whose connections are counted by themselves: it
    /// answers when all others are in use.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn with_state_listener(mut self, listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        self.state_listener = Some(listener);
        Ok(self)
    }

    /// A handle that shuts the server down.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until the server is shut down and has drained. The engine keeps running.
    ///
    /// # Errors
    /// When no thread can be started or the listener cannot be used.
    pub fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(MAX_BLOCKING)
            .thread_name("server")
            .enable_all()
            .build()?;
        let batches = self.start_batches()?;
        let app = Arc::clone(&self.app);
        let served = runtime.block_on(self.serve());
        if let Some(batches) = &app.batches {
            batches.go_down();
        }
        if let Some(thread) = batches
            && thread.join().is_err()
        {
            tracing::error!("the thread of batches ended by a panic");
        }
        app.release_data();
        // Blocking work whose result is not needed any more does not delay the end.
        runtime.shutdown_background();
        served
    }

    /// Starts the thread that runs batches, those of an earlier server included.
    fn start_batches(&self) -> io::Result<Option<JoinHandle<()>>> {
        let Some(batches) = self.app.batches.clone() else { return Ok(None) };
        let app = Arc::clone(&self.app);
        let work = move || {
            if let Some(data) = &app.config.data {
                batches.work(&app.model, data, app.config.unknown_fields);
            }
        };
        thread::Builder::new().name("batches".to_owned()).spawn(work).map(Some)
    }

    async fn serve(self) -> io::Result<()> {
        let Self { listener, state_listener, app, stop, signals } = self;
        if signals == Signals::Heed {
            tokio::spawn(heed_signals(stop)?);
        }
        let connections = GracefulShutdown::new();
        let ServerConfig { max_connections, max_connections_per_address, .. } = app.config;
        let open = Connections::new(max_connections, max_connections_per_address, app.proxies.clone());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let state_listener = state_listener.map(tokio::net::TcpListener::from_std).transpose()?;
        let accept_for_state = async {
            let Some(listener) = &state_listener else { return std::future::pending().await };
            let open = Connections::new(STATE_CONNECTIONS, STATE_CONNECTIONS, app.proxies.clone());
            accept(listener, &open, &state_router(Arc::clone(&app)), &connections, &app).await;
        };
        let service = router(Arc::clone(&app));
        // While the last requests are finished, new connections are accepted and answered 503.
        tokio::select! {
            () = accept(&listener, &open, &service, &connections, &app) => {}
            () = accept_for_state => {}
            () = drained(&app) => {}
        }
        drop((listener, state_listener));
        if timeout(CLOSE_TIMEOUT, connections.shutdown()).await.is_err() {
            tracing::warn!("connections were closed before their clients had read all");
        }
        Ok(())
    }
}

/// Accepts connections and serves them.
async fn accept(
    listener: &tokio::net::TcpListener,
    open: &Arc<Connections>,
    service: &Router,
    connections: &GracefulShutdown,
    app: &AppState,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let (connection, shed) = open.admit(address.ip().to_canonical());
                if shed != Shed::None {
                    app.metrics.connection_closed();
                }
                if let Some(connection) = connection {
                    let watcher = connections.watcher();
                    let served =
                        serve_connection(stream, service.clone(), connection, watcher, Arc::clone(app));
                    tokio::spawn(counted(Arc::clone(app), served));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until the server is told to shut down and has finished its requests, or until the longest request must be over.
async fn drained(app: &App) {
    app.drain.begun().await;
    tracing::info!("draining");
    if let Some(batches) = &app.batches {
        batches.go_down();
    }
    let _ = timeout(app.config.request_timeout + CLOSE_TIMEOUT, app.drain.idle()).await;
}

async fn counted(app: AppState, served: impl Future<Output = ()>) {
    app.metrics.connections().inc();
    served.await;
    app.metrics.connections().dec();
}

async fn serve_connection(
    stream: TcpStream,
    service: Router,
    connection: Connection,
    watcher: Watcher,
    app: AppState,
) {
    let (close, admitted, peer) =
        (Arc::clone(&connection.close), connection.admitted, Peer(connection.address));
    let (log, address) = (app.config.access_log, connection.address);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let access = Arc::new(Access::default());
        let client = app.proxies.client(address, request.headers());
        let (method, path) = (request.method().clone(), request.uri().path());
        let line = Line::new(log, Arc::clone(&access), client, method, path);
        request.extensions_mut().insert(access);
        request.extensions_mut().insert(admitted);
        request.extensions_mut().insert(peer);
        let in_use = connection.in_use();
        let answered = service.clone().oneshot(request);
        async move { Ok::<_, Infallible>(line.until_sent(answered.await?, in_use)) }
    });
    // Send each token at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(WRITE_BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::select! {
        // Clients may close the connection or send invalid data at any time.
        ended = watcher.watch(served) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
                if error.is_parse() {
                    access::malformed(log, address, status_of(&error));
                }
            }
        }
        () = close.notified() => tracing::debug!("an idle connection made room for another"),
    }
}

/// Begins to drain at the first signal and ends the process at the second.
fn heed_signals(stop: Stop) -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        for is_last in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_last {
                std::process::exit(EXIT_SIGNALLED);
            }
            stop.stop();
        }
    })
}

/// Exit status of shells for a process that SIGINT ended.
const EXIT_SIGNALLED: i32 = 130;

/// The status that hyper answers to what it cannot read.
fn status_of(error: &hyper::Error) -> u16 {
    match error.is_parse_too_large() {
        // It tells these apart in the message alone.
        true if error.to_string().contains("URI") => 414,
        true => 431,
        false => 400,
    }
}
