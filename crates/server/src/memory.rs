//! The memory that all requests together may take before they are in the engine: their bodies while these arrive, and what
//! they are parsed and tokenised into.

use std::io::{self, Write};
use std::sync::Arc;

use axum::http::StatusCode;
use openai::ApiError;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// Bytes of a body that cost nothing, so that requests of the usual size are read however much the large ones hold. There are
/// no more of them than connections.
const FREE: usize = 64 << 10;
/// Bytes that a growing body takes at a time.
const STEP: usize = 256 << 10;
/// Bytes that a byte of a body can become while it is parsed and tokenised: 57 measured for a text of one long word, 50 for a list
/// of small objects.
const PARSED_PER_BYTE: usize = 64;
/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// What is left of the memory.
#[derive(Debug)]
pub(crate) struct Memory {
    bodies: Arc<Semaphore>,
    body_units: usize,
    parsed: Arc<Semaphore>,
    parsed_units: u32,
    /// For what bodies of at most [`FREE`] bytes become: they do not wait for the large ones.
    parsed_small: Arc<Semaphore>,
}

/// Memory that something holds.
pub(crate) type Held = Option<OwnedSemaphorePermit>;

impl Memory {
    /// A quarter of `bytes` is for bodies that arrive, an eighth for what small ones become, the rest for what large ones become.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(4, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        // The largest of the small ones has room, however little memory there is.
        let small = (units / 8).max(FREE / UNIT * PARSED_PER_BYTE);
        let parsed = (units - units / 4).saturating_sub(small).max(1);
        Self {
            bodies: Arc::new(Semaphore::new(units / 4)),
            body_units: units / 4,
            parsed: Arc::new(Semaphore::new(parsed)),
            parsed_units: u32::try_from(parsed).unwrap_or(u32::MAX),
            parsed_small: Arc::new(Semaphore::new(small)),
        }
    }

    /// Makes `held` cover a body of `len` bytes.
    ///
    /// # Errors
    /// 503 if other bodies hold what it needs.
    pub fn cover(&self, held: &mut Held, len: usize) -> Result<(), Refusal> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT + FREE;
        if len <= has {
            return Ok(());
        }
        let units = u32::try_from((len - has).next_multiple_of(STEP) / UNIT).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(units).map_err(|_| full())?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Waits until a body of `len` bytes may be parsed. The largest are parsed one at a time.
    ///
    /// # Errors
    /// 503 if the system lacks the memory that this body, and all others that are being parsed, may become.
    pub async fn parse(&self, len: usize) -> Result<Held, Refusal> {
        let wanted = u32::try_from(len.saturating_mul(PARSED_PER_BYTE).div_ceil(UNIT)).unwrap_or(u32::MAX);
        // Nobody closes the semaphores.
        if len <= FREE {
            return Ok(Arc::clone(&self.parsed_small).acquire_many_owned(wanted).await.ok());
        }
        let own = wanted.min(self.parsed_units);
        let held = Arc::clone(&self.parsed).acquire_many_owned(own).await.ok();
        let all = self.parsed_units as usize - self.parsed.available_permits();
        probe((all + (wanted - own) as usize) * UNIT)?;
        Ok(held)
    }

    /// Bytes that bodies hold.
    pub fn of_bodies(&self) -> usize {
        (self.body_units - self.bodies.available_permits()) * UNIT
    }
}

/// Whether the system has `len` bytes for the process. A parser does not expect an allocation to fail, so what it may need is
/// asked for before, all at once.
fn probe(len: usize) -> Result<(), Refusal> {
    Vec::<u8>::new().try_reserve_exact(len).map_err(|_| exhausted())
}

/// Appends to a buffer whose size clients decide.
///
/// # Errors
/// 503 if the system has no memory for it.
pub(crate) fn append(buffer: &mut Vec<u8>, data: &[u8]) -> Result<(), Refusal> {
    buffer.try_reserve(data.len()).map_err(|_| exhausted())?;
    buffer.extend_from_slice(data);
    Ok(())
}

/// A value as JSON.
///
/// # Errors
/// 503 if the system has no memory for it.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let mut text = Text(Vec::new());
    // Nothing else can fail: keys are strings.
    serde_json::to_writer(&mut text, value).map_err(|_| exhausted())?;
    Ok(text.0)
}

/// Grows while there is memory.
struct Text(Vec<u8>);

impl Write for Text {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        append(&mut self.0, data).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exhausted() -> Refusal {
    let message = "the system has no memory for a request of this size: try again in a moment";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ApiError::SERVER_ERROR, "out_of_memory", message)
}

fn full() -> Refusal {
    let message =
        "the bodies of other requests fill the memory that the server gives them: try again in a moment";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ApiError::SERVER_ERROR, "memory_full", message)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_no_system_has_is_refused() {
        // The address space of a process is far smaller.
        assert_eq!(probe(isize::MAX as usize).unwrap_err().0.status, 503);
        probe(1 << 20).unwrap();
        let mut buffer = Vec::new();
        append(&mut buffer, b"ab").unwrap();
        append(&mut buffer, b"c").unwrap();
        assert_eq!(buffer, b"abc");
        assert_eq!(to_json(&[1, 2]).unwrap(), b"[1,2]");
    }

    #[test]
    fn small_bodies_do_not_wait_for_large_ones_to_be_parsed() {
        let memory = Memory::new(64 << 20);
        let large = memory.parse(8 << 20).now_or_never().unwrap().unwrap();
        assert!(memory.parse(FREE + 1).now_or_never().is_none());
        let small = memory.parse(FREE).now_or_never().unwrap().unwrap();
        // They are bounded too.
        let others: Vec<_> = std::iter::from_fn(|| memory.parse(FREE).now_or_never()).take(100).collect();
        assert_eq!(others.len(), 1);
        drop((large, small, others));
        assert!(memory.parse(FREE + 1).now_or_never().is_some());
    }

    #[test]
    fn large_bodies_take_turns_and_small_ones_pass() {
        let memory = Memory::new(4 << 20);
        let (mut first, mut second) = (None, None);
        memory.cover(&mut first, 900 << 10).unwrap();
        memory.cover(&mut second, FREE).unwrap();
        assert!(second.is_none());
        assert_eq!(memory.cover(&mut second, 400 << 10).unwrap_err().0.status, 503);
        drop(first);
        memory.cover(&mut second, 400 << 10).unwrap();
        memory.cover(&mut second, 450 << 10).unwrap();
        assert_eq!(memory.of_bodies(), 512 << 10);
        drop(second);
        assert_eq!(memory.of_bodies(), 0);
    }
}
